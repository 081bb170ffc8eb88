"""Optuna's samplers by config, and whether a sampler can search a study."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from sweep.core.errors import UserError, first_line

GRID = "grid"
AUTO = "auto"
_OPTUNA_SWEEPER = "hydra_plugins.hydra_optuna_sweeper.config."  # the module is absent if the plug-in is
_INVENTED_TRIALS = 12  # most samplers propose fewer at random before they use earlier trials


def kind_of(node: Any) -> str | None:
    """AUTO or GRID, which the study handles itself; None for one of Optuna's samplers."""
    if node is None:
        return AUTO
    if isinstance(node, functools.partial):  # Hydra has built it, unless `_recursive_` is false
        return GRID if node.func is optuna.samplers.GridSampler else None
    target = _target(str(node.get("_target_"))) if isinstance(node, Mapping) else ""
    if target in (AUTO, GRID):
        return target
    return GRID if target == "optuna.samplers.GridSampler" else None


def _target(name: str) -> str:
    """The class of Optuna that a `_target_` means. Configs for hydra-optuna-sweeper also name that plug-in's own
    module, and the sampler that Optuna has removed."""
    last = name.rpartition(".")[2]
    if name.startswith((_OPTUNA_SWEEPER, "optuna.")) and "motpe" in last.lower():
        return f"{__name__}.motpe"
    return f"optuna.samplers.{last.removesuffix('Config')}" if name.startswith(_OPTUNA_SWEEPER) else name


def build(node: Any) -> BaseSampler:
    """The sampler that `hydra.sweeper.sampler` describes, or UserError."""
    return create(node, BaseSampler, "hydra.sweeper.sampler")


def create(node: Any, kind: type[Any], key: str) -> Any:
    """The object of class `kind` that a config with `_target_` describes, or UserError about `key`. In the config, null
    stands for Optuna's default."""
    if isinstance(node, kind):
        return node
    container = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    if not isinstance(container, dict) or "_target_" not in container:
        raise UserError(f"{key} = {container}: must name a class, {{_target_: optuna.….…}}")
    options = {name: value for name, value in container.items() if value is not None}
    options["_target_"] = _target(str(options["_target_"]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # options that hydra-optuna-sweeper's configs name
            found = instantiate(options)
        found = found() if isinstance(found, functools.partial) else found
    except (HydraException, ImportError, TypeError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"{key} = {options['_target_']} cannot be created: {type(cause).__name__}: {first_line(cause)}"
        ) from error
    if not isinstance(found, kind):
        raise UserError(f"{key} = {options['_target_']} creates a {type(found).__name__}, not a {kind.__name__}")
    return found


def motpe(n_ehvi_candidates: int = 24, **options: Any) -> BaseSampler:
    """The replacement for MOTPESampler, which Optuna has merged into TPESampler."""
    return optuna.samplers.TPESampler(**{"n_ei_candidates": n_ehvi_candidates, **options})


def check_sampler(node: Any, directions: Sequence[str], space: Mapping[str, BaseDistribution]) -> None:
    """Let the sampler propose a trial for a study in memory, with invented values. UserError if it raises an exception:
    an error now costs less than one after a night of runs."""
    sampler, space = build(node), dict(space)
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    asked = optuna.create_study(directions=list(directions), sampler=optuna.samplers.RandomSampler(seed=0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(_INVENTED_TRIALS):
                params = asked.ask(space).params
                values = [float(number * (i + 1) % 7) for i in range(len(directions))]
                study.add_trial(optuna.create_trial(values=values, params=params, distributions=space))
            study.ask(space)
    except Exception as error:
        raise UserError(
            f"hydra.sweeper.sampler = {type(sampler).__name__} cannot search this study ({len(directions)} objectives; "
            f"{', '.join(space)}): {type(error).__name__}: {first_line(error)}\nChoose another: tpe, random, nsgaii, gp"
        ) from error
