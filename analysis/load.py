"""MLflow → one DataFrame row per run. The only importer of mlflow in this package."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sweep import redact
from sweep.errors import UserError, alternatives, first_line
from sweep.preflight import sqlite_path

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

PARENT = "mlflow.parentRunId"
_PAGE = 1000


class Study(NamedTuple):
    """A study's runs, and what its parent run says of them."""

    name: str
    parent_id: str
    conditions: dict[str, str]
    command: str
    runs: pd.DataFrame


class Store:
    """One experiment of a tracking store. Only the answer is ever written to it."""

    def __init__(self, uri: str, experiment: str):
        """Raises UserError where there is no such store or experiment."""
        self._shown = redact.text(uri)
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
        self._experiment_id = found.experiment_id

    def studies(self) -> list[str]:
        """The names of all studies, latest first."""
        return list(dict.fromkeys(run.data.tags["study"] for run in self._search("tags.kind = 'study'")))

    def study(self, name: str) -> Study:
        """A study with its runs, in order of their start.

        Raises:
            UserError: where there is no such study, or it has no run yet.
        """
        parents = [run for run in self._search("tags.kind = 'study'") if run.data.tags.get("study") == name]
        if not parents:
            known = self.studies()
            instead = alternatives(name, known) if known else "and no other: python -m sweep -m experiment=quickstart"
            raise UserError(f"there is no study {name} in {self._shown}; {instead}")
        parent = parents[0]
        children = self._search(f"tags.`{PARENT}` = '{parent.info.run_id}'")
        if not children:
            raise UserError(f"study {name} has no run yet: the command that began it goes on with it")
        children.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        return Study(
            name=name,
            parent_id=parent.info.run_id,
            conditions=json.loads(parent.data.tags.get("conditions.values", "{}")),
            command=parent.data.tags.get("command", ""),
            runs=pd.DataFrame([_row(run) for run in children]),
        )

    def log_report(self, parent_id: str, files: Sequence[Path], answer: str, tags: dict[str, str]) -> None:
        """The report's files and the answer, on the study's parent run."""
        with self._told():
            for file in files:
                self.client.log_artifact(parent_id, str(file), "report")
            self.client.set_tag(parent_id, "mlflow.note.content", answer)
            for key, value in tags.items():
                self.client.set_tag(parent_id, key, value)

    def _search(self, query: str) -> list[Run]:
        found: list[Run] = []
        page = None
        with self._told():
            while True:
                part = self.client.search_runs([self._experiment_id], query, max_results=_PAGE, page_token=page)
                found.extend(part)
                page = part.token
                if not page:
                    return found

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            first = first_line(getattr(error, "message", None) or error)
            raise UserError(redact.text(f"the tracking store {self._shown} cannot be read: {first}")) from error


def _row(run: Run) -> dict[str, object]:
    """Tags as text, metrics as numbers, seed and trial as integers."""
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    running = run.info.status == "RUNNING"
    return {
        "run_id": run.info.run_id,
        "conditions.values": "{}",
        **tags,
        "outcome": "running" if running else tags["outcome"],
        "reason": "not ended yet" if running else tags.get("reason", ""),
        "seed": int(tags["seed"]),
        "running": running,
        **run.data.metrics,
    }
