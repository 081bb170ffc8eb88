"""What one run yields: the only value that crosses from sweep to analysis. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sweep.core.measurements import MAX_MEMORY_ALLOCATED

LAUNCHED = "launched"  # the fact "false": memory was predicted not to suffice, and nothing was run


class Outcome(StrEnum):
    """How a run ended. Only `OK` runs compete; the others stay in every table with their reason."""

    OK = "ok"
    OOM = "oom"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def final(self) -> bool:
        """Whether running the same thing again would tell nothing new. `failed` and `killed` runs are worth a retry."""
        return self not in (Outcome.FAILED, Outcome.KILLED)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run, flat.

    `measurements` is open: keys carry their unit (`train_seconds`, `memory/train_reserved_bytes`), a value that was not
    measured is absent, never 0 or NaN. `facts` are the same for text (`memory_source`, `device`).
    """

    variant: str
    setting: str
    seed: int
    outcome: Outcome
    reason: str = ""
    study: str | None = None
    trial: int | None = None
    conditions_hash: str | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person reads in a list of runs."""
        return f"{self.setting} · seed {self.seed}"

    def ended(self, outcome: Outcome, reason: str = "", **measurements: float) -> Record:
        """The same run with its outcome, and what was measured until then."""
        return replace(self, outcome=outcome, reason=reason, measurements={**self.measurements, **measurements})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "study": self.study,
            "trial": self.trial,
            "variant": self.variant,
            "setting": self.setting,
            "seed": self.seed,
            "conditions_hash": self.conditions_hash,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "measurements": dict(self.measurements),
            "facts": dict(self.facts),
        }


def is_memory(measurement: str) -> bool:
    """Whether a measurement of this name is a memory figure in bytes, so that it may stand on the memory axis."""
    phase_figure = measurement.startswith("memory/") and measurement.endswith("_bytes")
    return phase_figure or measurement == MAX_MEMORY_ALLOCATED
