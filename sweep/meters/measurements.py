"""What one run has measured so far. After a failure, the figures that were measured before it remain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sweep.core.artifacts import TIMELINE_FILE
from sweep.core.measurements import MAX_MEMORY_ALLOCATED, PAGED_BYTES, PEAK_MEMORY_BYTES
from sweep.core.record import Outcome, Record
from sweep.meters import Meters, memory_meter, memory_timeline
from sweep.meters.energy import EnergyMeter


class Measurements:
    """The meters of a run, the figures of other sources (scores, counts), and facts as text. `device_type` is "cuda" or
    "cpu"; the meters write their files to `folder`."""

    def __init__(self, device_type: str, options: Meters, folder: Path):
        self.memory = memory_meter(device_type, options, folder)
        self.energy = EnergyMeter()
        self._figures: dict[str, float] = {}
        self._facts: dict[str, str] = {}
        self._folder = folder

    def add(self, figures: Mapping[str, float | None], facts: Mapping[str, str] | None = None) -> None:
        """Add figures by their keys in the record. A figure that is None was not measured and is left out."""
        self._figures.update({key: value for key, value in figures.items() if value is not None})
        self._facts.update(facts or {})

    def close(self, record: Record, outcome: Outcome, reason: str) -> Record:
        """The record of the ended run with everything that was measured. Writes the memory timeline."""
        memory_timeline.write(self.memory.timeline, self._folder / TIMELINE_FILE)
        allocated = self.memory.readings.get("memory/train_max_allocated_bytes")
        self.add({
            PEAK_MEMORY_BYTES: None if allocated is None else allocated + self.memory.readings.get(PAGED_BYTES, 0),
            MAX_MEMORY_ALLOCATED: allocated,
            "energy_joules": self.energy.joules,
        })  # fmt: skip
        facts = {**self.memory.facts, "energy_source": self.energy.source, **self._facts}
        return record.added({**self.memory.readings, **self._figures}, facts).ended(outcome, reason)
