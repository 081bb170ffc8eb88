"""The result of one run: the only value that goes from sweep to analysis. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from sweep.core.measurements import MAX_MEMORY_ALLOCATED, PEAK_MEMORY_BYTES

# Facts for the book alone: the run's row in MLflow, whether MLflow lacks its end, and the folder of its files.
ROW, UNSENT, FOLDER = "mlflow_run_id", "unsent", "folder"
LAUNCHED = "launched"  # the fact "false": the prediction exceeds the memory, and the run was not started


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
        """Whether a repetition would give the same result. `failed` and `killed` runs are worth a retry."""
        return self not in (Outcome.FAILED, Outcome.KILLED)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run, flat.

    `measurements` accepts any key. A key contains its unit (`train_seconds`, `memory/train_reserved_bytes`). A value
    that was not measured is absent, never 0 or NaN. `facts` are the same for text (`memory_source`, `device`).
    """

    study: str | None = None
    trial: int | None = None
    variant: str
    setting: str
    seed: int
    conditions_hash: str | None = None
    outcome: Outcome
    reason: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name in a list of runs."""
        return f"{self.setting} · seed {self.seed}"

    def ended(self, outcome: Outcome, reason: str = "", **measurements: float) -> Record:
        """The same run with its outcome, and with more measurements."""
        return replace(self.added(measurements), outcome=outcome, reason=reason)

    def added(self, measurements: Mapping[str, float], facts: Mapping[str, str] | None = None) -> Record:
        """The same run with more measurements and facts."""
        return replace(self, measurements={**self.measurements, **measurements}, facts={**self.facts, **(facts or {})})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "outcome": str(self.outcome)}


def is_memory(measurement: str) -> bool:
    """Whether the measurement of this name is memory in bytes, which a chart can show on its memory axis."""
    phase_figure = measurement.startswith("memory/") and measurement.endswith("_bytes")
    return phase_figure or measurement in (PEAK_MEMORY_BYTES, MAX_MEMORY_ALLOCATED)
