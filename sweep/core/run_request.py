"""The request that the parent sends to a run's process. Imports nothing heavy: both processes import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.core.record import Record


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The composed config, the run's record before it starts, and the folder for its files."""

    config: Mapping[str, Any]
    record: Record
    folder: str
