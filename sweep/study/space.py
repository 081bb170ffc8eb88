"""Hydra's sweep syntax ↔ what is searched. The seed is never searched: its values are the replicates of a setting."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from sweep.errors import UserError
from sweep.study.setting import SEED, VARIANT


@dataclass(frozen=True, kw_only=True)
class Space:
    """`fixed` are overrides that hold for all runs; `choices` maps each searched key to its values, as override text;
    `seeds` are the replicates, None where the config's own seed is the only one."""

    fixed: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...] | None

    @classmethod
    def of(cls, params: Mapping[str, Any], arguments: Sequence[str], config_loader: Any) -> Space:
        """From `hydra.sweeper.params` and the command line, which wins.

        Raises:
            UserError: for a range without steps, and for seeds that are not whole numbers.
        """
        parser = OverridesParser.create(config_loader=config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments])
        last = {override.get_key_element(): override for override in overrides}
        fixed, choices, seeds = [], {}, None
        for key, override in last.items():
            values = _values(override)
            if key == SEED and values is not None:
                seeds = tuple(_seed(value) for value in values)
            elif values is None:
                fixed.append(str(override.input_line))
            else:
                choices[key] = values
        return cls(fixed=tuple(fixed), choices=choices, seeds=seeds)

    def settings(self) -> Iterator[dict[str, str]]:
        """Every combination of the choices, in the order in which they were written."""
        for values in itertools.product(*self.choices.values()):
            yield dict(zip(self.choices, values, strict=True))

    @property
    def swept(self) -> list[str]:
        """The keys that make a setting: those searched, and the variant's own where they are overridden for all."""
        fixed = (override.partition("=")[0].lstrip("+") for override in self.fixed)
        return [*(key for key in fixed if key.startswith(f"{VARIANT}.")), *(key.lstrip("+") for key in self.choices)]

    def overrides(self, setting: Mapping[str, str]) -> list[str]:
        """The overrides of one setting. Choices of presets come first in Hydra whatever their order here."""
        return [*self.fixed, *(f"{key}={value}" for key, value in setting.items())]


def _values(override: Override) -> tuple[str, ...] | None:
    """The distinct values of a sweep override as text, in order; None for a plain override."""
    if not override.is_sweep_override():
        return None
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a range without steps cannot be swept yet; name the values, "
            f"{override.get_key_element()}=choice(…)"
        )
    return tuple(dict.fromkeys(override.sweep_string_iterator()))


def _seed(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"seed = {value} must be a whole number: each seed is a replicate") from None
