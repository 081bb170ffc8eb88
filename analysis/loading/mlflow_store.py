"""MLflow → one DataFrame row per run, and the answer back. The only importer of mlflow in this package."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.version import VERSION as mlflow_version
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from analysis.loading.study import COLUMNS, Point, Study
from sweep.core import redaction
from sweep.core.artifacts import EXAMPLES_FILE
from sweep.core.errors import UserError, alternatives, first_line
from sweep.core.preflight import sqlite_path

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
COLOUR = "mlflow.runColor"
_PAGE = 5000  # runs per request: each costs a query, and the bar moves once
_COUNTED = 200  # of a study's runs, when all studies are listed
_LISTED = 20  # studies


class StudyState(NamedTuple):
    """A line of the list of studies. `outcomes` counts at most the first _COUNTED runs; `more` says that there are."""

    name: str
    state: str
    begun: datetime
    outcomes: dict[str, int]
    more: bool
    pick: str


class StudyReader:
    """One experiment of a tracking store. Only the answer is ever written to it."""

    def __init__(self, uri: str, experiment: str):
        """Raises UserError where there is no such store or experiment."""
        self._shown = redaction.text(uri)
        file = sqlite_path(uri)
        if file is not None and not file.exists():
            raise UserError(
                f"there is no tracking store {file}. Run a study first (python -m sweep -m experiment=quickstart), go "
                "to the folder it was run in, or name the store: tracking.uri=sqlite:////folder/mlflow.db"
            )
        with self._told():
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
        if found is None:
            raise UserError(f"{self._shown} has no experiment {experiment}; name another with tracking.experiment=…")
        self.experiment_id = found.experiment_id
        self._artifact_uri: dict[str, str] = {}

    @staticmethod
    def client_version() -> str:
        return mlflow_version

    def states(self) -> tuple[list[StudyState], int]:
        """The latest studies with their state, latest first, and how many there are in all."""
        parents = self._search("tags.kind = 'study'")
        parents.sort(key=lambda run: -run.info.start_time)
        latest = {run.data.tags["study"]: run for run in reversed(parents)}
        shown = sorted(latest.values(), key=lambda run: -run.info.start_time)[:_LISTED]
        return [self._state(run) for run in shown], len(latest)

    def latest(self) -> tuple[str, str] | None:
        """Name and run of the study that was begun last, or None."""
        parents = self._search("tags.kind = 'study'")
        newest = max(parents, key=lambda run: run.info.start_time, default=None)
        return None if newest is None else (newest.data.tags["study"], newest.info.run_id)

    def study(self, name: str) -> Study:
        """A study with its runs, in order of their start.

        Raises:
            UserError: where there is no such study, or it has no run yet.
        """
        asked = f" and tags.study = '{name}'" if "'" not in name else ""  # MLflow's filters have no escape
        parents = [run for run in self._search(f"tags.kind = 'study'{asked}") if run.data.tags.get("study") == name]
        if not parents:
            known = [state.name for state in self.states()[0]]
            instead = alternatives(name, known) if known else "and no other: python -m sweep -m experiment=quickstart"
            raise UserError(f"there is no study {name} in {self._shown}; {instead}")
        parent = max(parents, key=lambda run: run.info.start_time)
        children = self._search(f"tags.`{PARENT}` = '{parent.info.run_id}'", told=name)
        if not children:
            raise UserError(f"study {name} has no run yet: the command that began it goes on with it")
        children.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        self._artifact_uri.update((run.info.run_id, run.info.artifact_uri) for run in children)
        return Study(
            name=name,
            parent_id=parent.info.run_id,
            conditions=json.loads(parent.data.tags.get("conditions", "{}")),
            command=parent.data.tags.get("command", ""),
            runs=_table(children),
            running=parent.info.status == "RUNNING",
            find_examples=self._examples,
            history=self._history,
        )

    def log_report(
        self,
        parent_id: str,
        title: str,
        files: Sequence[Path],
        note: str,
        tags: Mapping[str, str],
        view: Mapping[str, str],
    ) -> None:
        """The report's files, the answer and its tags, on the study's parent run; `title` becomes the run's name, which
        is what its page and the list of runs begin with. `view` are the experiment's tags."""
        with self._told():
            self.client.update_run(parent_id, name=redaction.text(title))
            for file in files:
                self.client.log_artifact(parent_id, str(file), "report")
            told = [RunTag(key, redaction.text(value)) for key, value in {NOTE: note, **tags}.items()]
            self.client.log_batch(parent_id, tags=told)
            for key, value in view.items():
                self.client.set_experiment_tag(self.experiment_id, key, value)

    def tag_runs(self, tags: Mapping[str, Mapping[str, str]]) -> None:
        """run id → tags to set on it."""
        with self._told():
            for run_id, values in tqdm(tags.items(), desc="verdicts to the store", disable=_quiet(tags), leave=False):
                self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in values.items()])

    def _state(self, parent: Run) -> StudyState:
        with self._told():
            part = self.client.search_runs(
                [self.experiment_id], f"tags.`{PARENT}` = '{parent.info.run_id}'", max_results=_COUNTED
            )
        counts = pd.Series([_outcome(run) for run in part], dtype=object).value_counts(sort=False)
        tags = parent.data.tags
        return StudyState(
            name=tags["study"],
            state={"RUNNING": "running, or its program died", "FINISHED": "finished"}.get(
                parent.info.status, parent.info.status.lower()
            ),
            begun=datetime.fromtimestamp(parent.info.start_time / 1000),
            outcomes={str(key): int(count) for key, count in counts.items()},
            more=bool(part.token),
            pick=tags.get("selected", ""),
        )

    def _examples(self, run_id: str) -> Path | None:
        """A local store's file as it lies there, another's fetched."""
        parts = urlsplit(self._artifact_uri.get(run_id, ""))
        if parts.scheme in ("", "file"):
            file = Path(unquote(parts.path)) / EXAMPLES_FILE
            return file if file.is_file() else None
        try:
            return Path(self.client.download_artifacts(run_id, EXAMPLES_FILE))
        except (MlflowException, OSError):
            return None

    def _history(self, run_id: str, key: str) -> list[Point]:
        with self._told():
            return [Point(metric.step, metric.value) for metric in self.client.get_metric_history(run_id, key)]

    def _search(self, query: str, told: str | None = None) -> list[Run]:
        """All runs that a filter finds; `told` is said while it takes long, on a terminal."""
        found: list[Run] = []
        page = None
        quiet = told is None or not sys.stderr.isatty()
        with self._told(), tqdm(desc=f"reading the runs of {told}", unit=" runs", leave=False, disable=quiet) as bar:
            while True:
                part = self.client.search_runs([self.experiment_id], query, max_results=_PAGE, page_token=page)
                found.extend(part)
                bar.update(len(part))
                page = part.token
                if not page:
                    return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            first = first_line(getattr(error, "message", None) or error)
            raise UserError(redaction.text(f"the tracking store {self._shown} cannot be read: {first}")) from error


def _quiet(work: Mapping[str, object]) -> bool:
    return len(work) < 100 or not sys.stderr.isatty()


def _outcome(run: Run) -> str:
    return "running" if run.info.status == "RUNNING" else run.data.tags.get("outcome", "unknown")


def _table(children: Sequence[Run]) -> pd.DataFrame:
    runs = pd.DataFrame([_row(run) for run in children])
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
