"""What must be equal in all settings of a study, and in all its commands. Each fault names its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.config.schema import RunConfig
from sweep.core.errors import ConfigError, Fault, UserError


@dataclass(frozen=True)
class Setting:
    """A setting with its composed config."""

    name: str
    digest: str
    config: RunConfig
    plain: Mapping[str, Any]


def name_clashes(settings: Iterable[tuple[tuple[Any, ...], Setting]]) -> Iterator[Fault]:
    """Faults for two settings with one name, which no table could tell apart."""
    by_name: dict[str, tuple[Any, ...]] = {}
    for params, setting in settings:
        other = by_name.setdefault(setting.name, params)
        if other is not params:
            values = " and ".join(", ".join(f"{k}={v}" for k, v in one) for one in (other, params))
            yield Fault("variant.name", setting.name, f"stands for two settings ({values}); give each variant its own")


def require_same(conditions: Sequence[Mapping[str, str]], settings: Sequence[Setting]) -> None:
    """Raise ConfigError if the conditions of two settings differ: a swept preset may also change conditions."""
    for other, setting in zip(conditions[1:], settings[1:], strict=True):
        if differing := _differing(conditions[0], other):
            raise ConfigError(
                Fault(key, f"{old} or {new}", f"differs between {settings[0].name} and {setting.name}: fix it for all")
                for key, old, new in differing
            )


def require_same_study(
    name: str, begun: Mapping[str, str], now: Mapping[str, str], name_key: str = "study.name"
) -> None:
    """Raise UserError if the conditions of the study's first command and of this one differ."""
    if differing := _differing(begun, now):
        lines = "\n".join(f"  {key}: {old} → {new}" for key, old, new in differing)
        raise UserError(
            f"study {name} began under other conditions, so that its runs cannot be compared:\n{lines}\n"
            f"Give this study its own name ({name_key}=…), or use the old values."
        )


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str, str]]:
    keys = sorted(old.keys() | new.keys())
    return [(k, old.get(k, "—"), new.get(k, "—")) for k in keys if old.get(k) != new.get(k)]
