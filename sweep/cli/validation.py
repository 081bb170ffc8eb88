"""All faults of a command line at once, before a heavy import, before a file is written and before a launch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.config import hydra_options
from sweep.config.schema import parse, plain_config
from sweep.core import preflight, redaction
from sweep.core.errors import ConfigError, Fault, first_line
from sweep.core.overrides import count_of_range
from sweep.core.setting import select
from sweep.hydra_compat.composer import NOT_COMPOSED, Composer, composition_fault, override_text

_COMPOSED = 1000  # values of a range; of a longer one, the ends are checked
Validate = Callable[[DictConfig, bool], Iterable[Fault]]  # a composed config, and whether for a multirun → its faults


def check(conf: Path, args: Any, config_name: str, validate: Validate) -> None:
    """Compose and check the configs that would run. ConfigError with all faults of the overrides, the values, the
    folders and the stores."""
    with Composer(conf, args.config_dir, args.config_name or config_name) as composer:
        overrides, faults = composer.usable(args.overrides)
        multirun = args.multirun or composer.mode(overrides) == "MULTIRUN"
        try:
            cells = list(_cells(overrides, composer, multirun))
        except NOT_COMPOSED as error:
            cells, faults = [], [*faults, composition_fault(error, [], None)]
        for cell in cells:
            try:
                composed = composer.compose(cell, multirun)
            except NOT_COMPOSED as error:
                faults.append(composition_fault(error, cell, None))
                continue
            try:
                faults.extend(validate(composed, multirun))
            except NOT_COMPOSED as error:  # a required key was deleted
                faults.append(_unreadable(error, "config"))
    if faults:
        raise ConfigError(faults)


def _unreadable(error: Exception, key: str) -> Fault:
    """OmegaConf's error as a fault of the key that it names, else of `key`."""
    variable = re.search(r"Environment variable '(.+?)' not found", str(error))
    message = f"needs the environment variable {variable[1]}, which is not set" if variable else first_line(error)
    return Fault(str(getattr(error, "full_key", None) or key), "", message)


def _cells(overrides: Sequence[Override], composer: Composer, multirun: bool) -> Iterator[list[str]]:
    """Configs to check: the one that runs; in a multirun, each value of each swept key once, while the other keys have
    their first value. The sweeper checks all combinations later."""
    if not multirun:
        yield [override_text(o) for o in overrides]
        return
    fixed = [override_text(o) for o in overrides if not o.is_sweep_override()]
    given = {o.key_or_group for o in overrides}
    params = composer.params(fixed)
    swept = [o for o in overrides if o.is_sweep_override()]
    for key, value in params.items():
        if key not in given:
            override = composer.parse(f"{key}={value}")
            if override.is_sweep_override():
                swept.append(override)
            else:
                fixed.append(override_text(override))
    inside = {o.get_key_element(): g for o in swept for g in swept if o.key_or_group.startswith(f"{g.key_or_group}.")}
    apart = [o for o in swept if o.get_key_element() not in inside]
    choices = [_values(o) for o in apart]
    firsts = [values[0] for values in choices]
    yield fixed + firsts
    for position, values in enumerate(choices):
        for value in values[1:]:
            yield fixed + [value if i == position else first for i, first in enumerate(firsts)]
    for override in swept:
        if override.get_key_element() in inside:
            yield from _cells_inside(override, inside[override.get_key_element()], fixed, composer)


def _cells_inside(override: Override, group: Override, fixed: list[str], composer: Composer) -> Iterator[list[str]]:
    """The values of a key inside a swept group, under the group's first choice that has the key: `variant.r` exists for
    some variants only, and is searched for those only."""
    values, choices = _values(override), _values(group)

    def composes(choice: str) -> bool:
        with suppress(*NOT_COMPOSED):
            composer.compose([*fixed, choice, values[0]], multirun=True)
            return True
        return False

    having = next(filter(composes, choices), choices[0])
    yield from ([*fixed, having, value] for value in values)


def _values(override: Override) -> list[str]:
    swept = override.value()
    if override.is_range_sweep() and count_of_range(swept) > _COMPOSED:
        values = [swept.start, swept.stop]  # the largest value is one step less
    elif override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
    else:
        values = [swept.start, swept.end]
    if not values:
        raise ValueError(f"{override.input_line} has no value; name at least one")
    return [f"{override.get_key_element()}={value}" for value in values]


def validate(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """Faults of values, folders and stores of one composed config."""
    try:
        plain = plain_config(composed)
    except OmegaConfBaseException as error:
        yield _unreadable(error, "config")
        return
    try:
        parse(plain)
    except ConfigError as error:
        yield from error.faults
    verbose = OmegaConf.select(composed, "hydra.verbose")
    if not isinstance(verbose, bool | str | ListConfig):
        yield Fault("hydra.verbose", str(verbose), "must be true, false, or names of loggers")
    folder_key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    try:
        if multirun:
            yield from hydra_options.faults(composed)
        folder = OmegaConf.select(composed, folder_key)
        storage = OmegaConf.select(composed, "hydra.sweeper.storage") if multirun else None
    except OmegaConfBaseException as error:
        yield _unreadable(error, folder_key)
        return
    if not isinstance(folder, str) or not folder.strip():
        yield Fault(folder_key, str(folder), "must name a folder")
    else:
        yield from preflight.output_fault(folder_key, folder)
    if preflight.sqlite_path(str(select(plain, "tracking.uri"))) is not None:
        artifacts = str(select(plain, "tracking.artifacts"))
        if "://" not in artifacts:
            yield from preflight.output_fault("tracking.artifacts", artifacts.partition("?")[0])
    if multirun and storage and storage == select(plain, "tracking.uri"):
        yield Fault(
            "hydra.sweeper.storage", redaction.text(str(storage)), "is MLflow's; Optuna needs a database of its own"
        )
    for key, uri in {"tracking.uri": select(plain, "tracking.uri"), "hydra.sweeper.storage": storage}.items():
        if isinstance(uri, str):
            yield from preflight.store_fault(key, uri)
