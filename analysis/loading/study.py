"""A study: its runs as a table, from MLflow or from a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.loading.varied_keys import config_keys
from sweep.core.measurements import SCORE

# Columns that `Study.runs` always has. Numbers may be missing (NaN). Every other column is a measurement or a tag.
COLUMNS = ("run_id", "setting", "variant", "seed", "outcome", "reason", SCORE, "running", "conditions_hash")

DIRECTIONS = ("maximize", "minimize")


class Point(NamedTuple):
    """A value at an optimizer step."""

    step: int
    value: float


class Study(NamedTuple):
    """A study."""

    name: str
    parent_id: str | None  # its run in the store; None without a store
    conditions: dict[str, str]  # what the study holds fixed
    command: str  # the command line that started it
    runs: pd.DataFrame  # one row per run, in order of their start
    running: bool = False
    notes: tuple[str, ...] = ()  # what a reader must know about the data
    # run id → the file of its per-example results, or None
    find_examples: Callable[[str], Path | None] = lambda run_id: None
    # (run id, key) → the values of a measurement by step
    history: Callable[[str, str], Sequence[Point]] = lambda run_id, key: ()

    @property
    def keys(self) -> list[str]:
        """The columns of `runs` that are keys of the config: those with different values in the runs."""
        return config_keys(self.runs)

    @property
    def unfinished(self) -> int:
        """The number of rows whose process still runs, or died together with its coordinator."""
        return int(self.runs["running"].sum())

    def latest(self) -> pd.DataFrame:
        """The latest run of each setting and seed: a repetition replaces the earlier run."""
        return self.runs.drop_duplicates(["setting", "seed"], keep="last")

    def scored(self) -> pd.DataFrame:
        """The runs that compete: the latest run of each setting and seed, if it is ok and has a score."""
        runs = self.latest()
        return runs[(runs["outcome"] == "ok") & runs[SCORE].astype(float).notna()]
