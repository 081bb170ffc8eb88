"""Optuna's samplers by config, and whether one can do what the study asks of it."""

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
from optuna.trial import TrialState

from sweep.core.errors import UserError, first_line

GRID = "grid"
AUTO = "auto"
# Beyond what most samplers start with at random.
_REHEARSED_TRIALS = 12


def kind_of(node: Any) -> str | None:
    """ "auto" and "grid" are the study's own; None for a sampler of Optuna's."""
    if node is None:
        return AUTO
    target = str(node.get("_target_")) if isinstance(node, DictConfig | dict) else ""
    if target in (AUTO, GRID):
        return target
    return GRID if target == "optuna.samplers.GridSampler" else None


def build(node: Any) -> BaseSampler:
    """The sampler that `hydra.sweeper.sampler` describes.

    Raises:
        UserError: where it cannot be made.
    """
    return made(node, BaseSampler, "hydra.sweeper.sampler")


def made(node: Any, kind: type[Any], key: str) -> Any:
    """What a config with `_target_` describes, of the class `kind`. Options left at null are Optuna's defaults.

    Raises:
        UserError: where it cannot be made, or is of another class.
    """
    if isinstance(node, kind):
        return node
    container = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    if not isinstance(container, dict) or "_target_" not in container:
        raise UserError(f"{key} = {container}: must name a class, {{_target_: optuna.….…}}")
    options = {name: value for name, value in container.items() if value is not None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)  # options that hydra-optuna-sweeper's configs name
            found = instantiate(options)
        found = found() if isinstance(found, functools.partial) else found
    except (HydraException, ImportError, TypeError, ValueError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"{key} = {options['_target_']} cannot be made: {type(cause).__name__}: {first_line(cause)}"
        ) from error
    if not isinstance(found, kind):
        raise UserError(f"{key} = {options['_target_']} makes a {type(found).__name__}, not a {kind.__name__}")
    return found


def motpe(n_ehvi_candidates: int = 24, **options: Any) -> BaseSampler:
    """What MOTPESampler was until Optuna merged it into TPESampler."""
    return optuna.samplers.TPESampler(n_ei_candidates=n_ehvi_candidates, **options)


def check_sampler(node: Any, directions: Sequence[str], space: Mapping[str, BaseDistribution]) -> None:
    """Let a sampler of this config propose trials for a study of this shape, in memory, with invented values.

    Raises:
        UserError: where it raises. Better now than after a night of runs.
    """
    sampler = build(node)
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    random = optuna.samplers.RandomSampler(seed=0)
    asked = optuna.create_study(directions=list(directions), sampler=random)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(_REHEARSED_TRIALS):
                trial = asked.ask(dict(space))
                values = [float(number * (i + 1) % 7) for i in range(len(directions))]
                study.add_trial(
                    optuna.create_trial(
                        state=TrialState.COMPLETE, values=values, params=trial.params, distributions=dict(space)
                    )
                )
            study.ask(dict(space))
    except Exception as error:
        raise UserError(
            f"hydra.sweeper.sampler = {type(sampler).__name__} cannot search this study ({len(directions)} objectives; "
            f"{', '.join(space)}): {type(error).__name__}: {first_line(error)}\nChoose another: tpe, random, nsgaii, gp"
        ) from error
