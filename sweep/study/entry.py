"""How one replicate of a setting ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_PREFIX = "run:"
_SHOWN = ("outcome", "values", "violated", "final")
Seed = int | None  # None if the application does not support seeds


class Entry(NamedTuple):
    """How a replicate ended. `values` has one element per objective, None if it was not measured. `violated` holds by
    how much each constraint is violated; up to 0 it is satisfied. A later command repeats a replicate that is not
    `final`. `record` is the Record of a training run as a dictionary, and `unsent` says that MLflow lacks it."""

    outcome: str
    values: tuple[float | None, ...] = ()
    violated: Mapping[str, float] = {}
    final: bool = True
    record: Mapping[str, Any] | None = None
    unsent: bool = False

    @property
    def crashed(self) -> bool:
        """Whether the run was killed while its coordinator was alive."""
        return bool(self.record) and self.record.get("facts", {}).get("exit_kind") == "crashed"


def as_attributes(entries: Mapping[Seed, Entry]) -> dict[str, Any]:
    """These replicates as user attributes of a trial. A person reads them in optuna-dashboard: they hold only the
    fields that differ from their defaults."""
    return {
        f"{_PREFIX}{'' if seed is None else seed}": {
            key: getattr(entry, key) for key in _SHOWN if getattr(entry, key) != Entry._field_defaults.get(key)
        }
        for seed, entry in entries.items()
    }
