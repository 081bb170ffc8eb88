"""The request that the parent sends to a run's process. Imports nothing heavy: both processes import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.core.record import Record

EXAMPLES_FILE = "validation_examples.parquet"
TRACEBACK_FILE = "traceback.txt"
LOG_FILE = "run.log"
TIMELINE_FILE = "memory_timeline.csv"
SNAPSHOT_FILE = "oom_snapshot.pickle"
WEIGHTS_FOLDER = "checkpoint"  # the trained weights: an adapter, or all trained parameters


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The composed config, the run's record before it starts, and the folder for its files."""

    config: Mapping[str, Any]
    record: Record
    folder: str
