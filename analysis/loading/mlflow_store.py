"""A study in MLflow → one DataFrame row per run, and the answer back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from analysis.loading.study import COLUMNS, Point, Study
from analysis.loading.varied_keys import varied
from sweep.core import program, redaction
from sweep.core.artifacts import EXAMPLES_FILE
from sweep.core.errors import UserError, alternatives
from sweep.tracking.mlflow_reader import STUDY, MlflowReader, Run
from sweep.tracking.record_tags import json_object

NOTE = "mlflow.note.content"
COLOUR = "mlflow.runColor"
_COUNTED = 200  # of a study's runs, when all studies are listed
_LISTED = 20  # studies


class StudyState(NamedTuple):
    """One line of the list of studies. `outcomes` counts the first _COUNTED runs; `more`: whether there are more."""

    name: str
    state: str
    begun: datetime
    outcomes: dict[str, int]
    more: bool
    pick: str


class StudyReader(MlflowReader):
    """Reads studies as tables, and writes their answers: nothing else is written to the store."""

    def states(self) -> tuple[list[StudyState], int]:
        """The latest studies with their state, latest first, and how many there are in all."""
        latest = {run.data.tags[STUDY]: run for run in reversed(self.studies())}
        shown = sorted(latest.values(), key=lambda run: -run.info.start_time)[:_LISTED]
        return [self._state(run) for run in shown], len(latest)

    def latest(self) -> tuple[str, str] | None:
        """Name and parent run of the study that started last, or None."""
        newest = next(iter(self.studies()), None)
        return None if newest is None else (newest.data.tags[STUDY], newest.info.run_id)

    def study(self, name: str) -> Study:
        """A study with its runs, in order of their start.

        Raises:
            UserError: where there is no such study, or it has no run yet.
        """
        parent = self.find_study(name)
        if parent is None:
            known = [state.name for state in self.states()[0]]
            first = f"and no other: {program.command('sweep')} -m experiment=quickstart"
            instead = alternatives(name, known) if known else first
            deleted = next(iter(self.deleted_studies(name)), None)
            if deleted is not None:
                instead = f"it was deleted; restore it: mlflow runs restore --run-id {deleted}"
            raise UserError(f"there is no study {name} in {redaction.text(self.uri)}; {instead}")
        children, notes = self.runs(parent.info.run_id, label=f"reading the runs of {name}")
        if not children:
            raise UserError("\n".join([f"study {name} has no run yet; its own command continues it", *notes]))
        artifacts = {run.info.run_id: run.info.artifact_uri for run in children}
        return Study(
            name=name,
            parent_id=parent.info.run_id,
            conditions=json_object(parent.data.tags.get("conditions", "{}")) or {},
            command=parent.data.tags.get("command", ""),
            runs=_table(children),
            running=parent.info.status == "RUNNING",
            notes=tuple(notes),
            find_examples=lambda run_id: self.find_file(run_id, artifacts.get(run_id, ""), EXAMPLES_FILE),
            history=lambda run_id, key: [Point(*point) for point in self.history(run_id, key)],
        )

    def tag_runs(self, tags: Mapping[str, Mapping[str, str]]) -> None:
        """Set tags on many runs: run id → tags."""
        hidden = len(tags) < 100 or not sys.stderr.isatty()
        for run_id, values in tqdm(tags.items(), desc="verdicts to the store", disable=hidden, leave=False):
            self.annotate(run_id, tags=values)

    def _state(self, parent: Run) -> StudyState:
        part, _ = self.runs(parent.info.run_id, limit=_COUNTED + 1)
        counts = pd.Series([_outcome(run) for run in part[:_COUNTED]], dtype=object).value_counts(sort=False)
        tags = parent.data.tags
        return StudyState(
            name=tags[STUDY],
            state="running, or its program died" if parent.info.status == "RUNNING" else parent.info.status.lower(),
            begun=datetime.fromtimestamp(parent.info.start_time / 1000),
            outcomes={str(key): int(count) for key, count in counts.items()},
            more=len(part) > _COUNTED,
            pick=tags.get("selected", "no report yet") or "nothing was learnt",
        )


def _outcome(run: Run) -> str:
    return "running" if run.info.status == "RUNNING" else run.data.tags.get("outcome", "unknown")


def _table(children: Sequence[Run]) -> pd.DataFrame:
    runs = pd.DataFrame([_row(run) for run in children])
    keys = varied([run.data.params for run in children])
    runs = pd.concat([runs, keys.set_axis(runs.index)], axis=1)
    return runs.reindex(columns=[*runs.columns, *(c for c in COLUMNS if c not in runs)])


def _row(run: Run) -> dict[str, object]:
    """Tags as text, metrics as numbers, the seed as an integer."""
    tags = run.data.tags
    running = run.info.status == "RUNNING"
    row: dict[str, object] = {"run_id": run.info.run_id, "conditions": "{}"}
    row.update((key, value) for key, value in tags.items() if not key.startswith("mlflow.") or key == COLOUR)
    row["outcome"] = _outcome(run)
    row["reason"] = "not ended yet" if running else tags.get("reason", "")
    row["seed"] = int(tags["seed"])
    row["running"] = running
    row.update(run.data.metrics)
    return row
