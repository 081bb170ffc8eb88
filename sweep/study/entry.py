"""One replicate of a trial, as it is stored in the trial's user attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_PREFIX = "run:"
Seed = int | None  # None if the application does not support seeds


class Entry(NamedTuple):
    """Which coordinator runs a replicate, or how it ended. `values` has one element per objective, None if it was not
    measured. `violated` holds by how much each constraint is violated; up to 0 it is satisfied. A later command repeats
    a replicate that is not `final`."""

    claimed_by: str | None = None
    outcome: str | None = None
    values: tuple[float | None, ...] = ()
    violated: Mapping[str, float] = {}
    final: bool = True

    @property
    def ended(self) -> bool:
        return self.outcome is not None


def as_attributes(entries: Mapping[Seed, Entry]) -> dict[str, Any]:
    """The user attributes for these replicates. They hold only the fields that differ from their defaults: a person
    reads them in optuna-dashboard."""
    return {
        f"{_PREFIX}{'' if seed is None else seed}": {
            key: value for key, value in entry._asdict().items() if value != Entry._field_defaults[key]
        }
        for seed, entry in entries.items()
    }


def entries_of(attributes: Mapping[str, Any]) -> dict[Seed, Entry]:
    """The replicates in a trial's user attributes."""
    found: dict[Seed, Entry] = {}
    for key, value in attributes.items():
        if key.startswith(_PREFIX):
            seed = key.removeprefix(_PREFIX)
            found[int(seed) if seed else None] = Entry(**{**value, "values": tuple(value.get("values", ()))})
    return found
