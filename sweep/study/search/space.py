"""Hydra's sweep syntax ↔ what is searched. The seed is never searched: its values are the replicates of a setting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from sweep.core.errors import UserError
from sweep.core.overrides import count_of_range, yaml_value
from sweep.core.setting import SEED, VARIANT
from sweep.study.search.dimension import Dimension, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_SEEDS = 10_000  # of a range
Params = dict[str, Value]
Compose = Callable[[list[str]], DictConfig]  # the overrides of a job → its config, as Hydra composes it


@dataclass(frozen=True, kw_only=True)
class Space:
    """The settings that a study searches. `fixed` are the overrides of all runs, by key; `dimensions` are the searched
    keys; `seeds` are the replicates, or None for the config's own seed alone. `conditional_on` has the values of other
    keys under which a dimension exists: {"variant.r": {"variant": {"lora"}}}. `order` is that of the command line."""

    fixed: Mapping[str, str]
    dimensions: Mapping[str, Dimension]
    seeds: tuple[int, ...] | None
    conditional_on: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        params: Mapping[str, Any],
        arguments: Sequence[str],
        config_loader: Any,
        *,
        seed_is_replicate: bool = True,
        conditional_on: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Space:
        """From `params` and `conditional_on` of `hydra.sweeper`, and from the command line, which has priority.
        UserError if one of them is wrong."""
        parser = OverridesParser.create(config_loader=config_loader)
        described = {key: value for key, value in params.items() if isinstance(value, Mapping)}
        plain = [f"{key}={yaml_value(value)}" for key, value in params.items() if key not in described]
        overrides = parser.parse_overrides([*plain, *arguments])
        fixed: dict[str, str] = {}
        dimensions: dict[str, Dimension] = {key: Dimension.described(key, value) for key, value in described.items()}
        order = dict.fromkeys(described)
        seeds = None
        for key, override in {override.get_key_element(): override for override in overrides}.items():
            order[key] = None
            dimensions.pop(key, None)
            if not override.is_sweep_override():
                fixed[key] = str(override.input_line)
            elif key == SEED and seed_is_replicate:
                seeds = _seeds(override)
            else:
                dimensions[key] = Dimension.of(override)
        conditions = {
            key: {parent: frozenset(_texts(values)) for parent, values in parents.items()}
            for key, parents in (conditional_on or {}).items()
        }
        _check_conditions(conditions, dimensions, fixed)
        conditions = {key: parents for key, parents in conditions.items() if key in dimensions}
        return cls(fixed=fixed, dimensions=dimensions, seeds=seeds, conditional_on=conditions, order=tuple(order))

    def conditioned(self, exists: Callable[[str, str, str], bool], groups: Sequence[str]) -> Space:
        """The same space, but a key inside a searched group (`variant.r` in `variant`) is searched only under the
        choices whose preset has the key. `exists(group, choice, key)` returns whether it does. A key that no preset has
        stays as it is, and Hydra reports it."""
        conditional_on = dict(self.conditional_on)
        for key in self.dimensions:
            for group in groups:
                if group not in self.dimensions or not key.startswith(f"{group}.") or key in conditional_on:
                    continue
                choices = self.dimensions[group].texts.values()
                having = frozenset(choice for choice in choices if exists(group, choice, key))
                if having and len(having) < len(choices):
                    conditional_on[key] = {group: having}
        return replace(self, conditional_on=conditional_on)

    def size_at_most(self, limit: int) -> bool:
        """Whether the space is finite and has no more settings than `limit`."""
        finite = all(dimension.values is not None for dimension in self.dimensions.values())
        return finite and sum(1 for _ in itertools.islice(self.settings(), limit + 1)) <= limit

    def settings(self) -> Iterator[Params]:
        """Every setting of a finite space, in the order in which the values were written."""
        return self._combinations(dimension.values or () for dimension in self.dimensions.values())

    def corners(self) -> Iterator[Params]:
        """Settings at the ends of each range, with every value of the choices: the cost is extreme there."""
        return self._combinations(dimension.ends for dimension in self.dimensions.values())

    def _combinations(self, values_of_keys: Iterable[Sequence[Value]]) -> Iterator[Params]:
        """The distinct settings of these values. A setting contains only the keys that exist in it."""
        seen = set()
        for values in itertools.product(*values_of_keys):
            given = dict(zip(self.dimensions, values, strict=True))
            params = {key: value for key, value in given.items() if self.exists(key, given)}
            key = tuple(params.items())
            if key not in seen:
                seen.add(key)
                yield params

    def exists(self, key: str, params: Mapping[str, Value]) -> bool:
        """Whether a key is searched, given the values of the keys that its existence depends on."""
        return all(
            parent in params and self.exists(parent, params) and self.dimensions[parent].text(params[parent]) in values
            for parent, values in self.conditional_on.get(key, {}).items()
        )

    def in_order_of_dependence(self) -> list[str]:
        """The searched keys, each after the keys that its existence depends on."""
        ordered: list[str] = []

        def place(key: str) -> None:
            for parent in self.conditional_on.get(key, {}):
                place(parent)
            if key not in ordered:
                ordered.append(key)

        for key in self.dimensions:
            place(key)
        return ordered

    @property
    def swept(self) -> list[str]:
        """The keys that identify a setting: the searched keys, and the variant's keys that are overridden for all."""
        own = (key.lstrip("+") for key in self.fixed if key.lstrip("+").startswith(f"{VARIANT}."))
        return [*own, *(key.lstrip("+") for key in self.dimensions)]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {key: dimension.distribution for key, dimension in self.dimensions.items()}

    def exact(self, params: Mapping[str, Value]) -> Params:
        """The parameters of a trial with the numbers that the space lists."""
        return {k: self.dimensions[k].exact(value) if k in self.dimensions else value for k, value in params.items()}

    def swept_in(self, params: Mapping[str, Value]) -> list[str]:
        """The keys that identify this setting: a key that does not exist in it is not part of its name."""
        return [key for key in self.swept if key not in self.dimensions or key in params]

    def overrides(self, params: Mapping[str, Value]) -> list[str]:
        """The overrides of one setting, in the order of the command line. Keys that code has suggested come last."""
        texts = dict(self.fixed)
        for key, value in params.items():
            dimension = self.dimensions.get(key)
            texts[key] = f"{key}={dimension.text(value) if dimension else Dimension.plain_text(value)}"
        places = {key: place for place, key in enumerate(self.order)}
        return [texts[key] for key in sorted(texts, key=lambda key: places.get(key, math.inf))]


def _texts(values: Any) -> list[str]:
    listed = values if isinstance(values, list | tuple) else str(values).split(",")
    return [str(value).strip() for value in listed]


def _check_conditions(
    conditions: Mapping[str, Mapping[str, frozenset[str]]],
    dimensions: Mapping[str, Dimension],
    fixed: Mapping[str, str],
) -> None:
    for key, parents in conditions.items():
        for parent, values in parents.items():
            where = f"hydra.sweeper.conditional_on.{key}.{parent}"
            if parent == key or key in conditions.get(parent, {}):
                raise UserError(f"{where}: a key's existence cannot depend on itself")
            if parent not in dimensions:
                if key not in dimensions or parent in fixed:
                    continue
                raise UserError(f"{where}: {parent} is not searched; searched are {', '.join(dimensions) or 'none'}")
            unknown = values - set(dimensions[parent].texts.values())
            if unknown:
                raise UserError(
                    f"{where} = {', '.join(sorted(unknown))}: {parent} never has that value; it has "
                    f"{', '.join(dimensions[parent].texts.values())}"
                )


def _seeds(override: Override) -> tuple[int, ...]:
    if override.is_range_sweep() and count_of_range(override.value()) > _SEEDS:
        raise UserError(f"{override.input_line} has more than {_SEEDS} seeds; each is a run: name fewer")
    return tuple(_seed(value) for value in dict.fromkeys(override.sweep_string_iterator()))


def _seed(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"seed = {value} must be a whole number: each seed is a replicate") from None
