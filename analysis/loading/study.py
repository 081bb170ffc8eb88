"""A study's runs as a table, wherever they come from, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

# What every row of `Study.runs` has. Numbers may be missing (NaN); any other column is a measurement or a tag.
COLUMNS = ("run_id", "setting", "variant", "seed", "outcome", "reason", "score", "running", "conditions_hash")


class Point(NamedTuple):
    """A value that was logged at an optimizer step."""

    step: int
    value: float


def no_file(run_id: str) -> Path | None:
    """For runs without files."""
    return None


def no_history(run_id: str, key: str) -> Sequence[Point]:
    """For runs without values by step."""
    return ()


class Study(NamedTuple):
    """Runs, one row each in order of their start, and what is said of them all.

    `find_examples` gives the file of a run's per-example results, `history` its values by step. `notes` are things a
    reader has to know of the data. `parent_id` is the study's own run in the store, None where there is no store.
    """

    name: str
    parent_id: str | None
    conditions: dict[str, str]
    command: str
    runs: pd.DataFrame
    running: bool = False
    notes: tuple[str, ...] = ()
    find_examples: Callable[[str], Path | None] = no_file
    history: Callable[[str, str], Sequence[Point]] = no_history

    @property
    def unfinished(self) -> int:
        """Rows whose process is still at work, or died with its coordinator."""
        return int(self.runs["running"].sum())

    def latest(self) -> pd.DataFrame:
        """The latest run of each setting and seed: a repeated run replaces the one before it."""
        return self.runs.drop_duplicates(["setting", "seed"], keep="last")

    def scored(self) -> pd.DataFrame:
        """The runs that compete: the latest ones that ended well, with a score that is a number."""
        runs = self.latest()
        return runs[(runs["outcome"] == "ok") & runs["score"].astype(float).notna()]
