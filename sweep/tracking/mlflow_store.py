"""Record ↔ MLflow. The only importer of mlflow in this package.

Only the coordinator creates database, experiment and a study's parent run: processes that open a fresh SQLite store
together corrupt its migration, and an experiment created twice at once sends the loser's runs to "Default" (both seen
with MLflow 3.17). Everybody else works with ids.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from sweep.core import redaction
from sweep.core.errors import UserError, first_line
from sweep.core.preflight import sqlite_path
from sweep.core.record import Outcome, Record
from sweep.tracking.errors import set_up_mlflow, store_errors
from sweep.tracking.record_tags import clean_tags, tags_of, to_record

log = logging.getLogger(__name__)

PARENT = "mlflow.parentRunId"
STUDY = "study"
FLUSH_SECONDS = 5.0
_BATCH = 1000  # metrics that MLflow takes in one call
_STATUS = {Outcome.OK: "FINISHED", Outcome.PRUNED: "FINISHED", Outcome.KILLED: "KILLED"}


class MlflowStore:
    """One experiment of a tracking store."""

    def __init__(self, uri: str, experiment: str, artifacts: str):
        """Open the store, creating what it lacks.

        Raises:
            UserError: where it cannot be opened.
        """
        self.uri = uri
        with store_errors(uri), _creation_lock(uri):
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "deleted":
                raise UserError(
                    f"tracking.experiment = {experiment} was deleted in this store; restore it "
                    "(mlflow experiments restore), or choose another name"
                )
            local = sqlite_path(uri) is not None
            self.experiment_id = (
                found.experiment_id
                if found is not None
                else self.client.create_experiment(
                    experiment, artifact_location=Path(artifacts).absolute().as_uri() if local else None
                )
            )

    def find_study(self, name: str) -> Run | None:
        """The study's parent run, or None."""
        with store_errors(self.uri):
            found = self.client.search_runs(
                [self.experiment_id], f"tags.`{STUDY}` = {_quoted(name)} and tags.kind = 'study'", max_results=1
            )
        return found[0] if found else None

    def create_study(self, name: str, conditions: Mapping[str, str], tags: Mapping[str, str]) -> Run:
        """A parent run for a study that has none."""
        with store_errors(self.uri):
            clean = redaction.tree(dict(conditions))
            run = self.client.create_run(
                self.experiment_id,
                run_name=name,
                tags=clean_tags({"kind": "study", STUDY: name, "conditions": json.dumps(clean), **tags}),
            )
            self.client.log_dict(run.info.run_id, clean, "conditions.json")
            return run

    def study_conditions(self, parent: Run) -> dict[str, str]:
        """The conditions that the study was begun with, credentials masked."""
        with store_errors(self.uri):
            path = self.client.download_artifacts(parent.info.run_id, "conditions.json")
        return dict(json.loads(Path(path).read_text()))

    def records(self, parent_id: str) -> list[tuple[str, Record]]:
        """(run id, Record) of every child of a study, in order of their start."""
        children: list[Run] = []
        page = None
        with store_errors(self.uri):
            while True:
                found = self.client.search_runs(
                    [self.experiment_id], f"tags.`{PARENT}` = {_quoted(parent_id)}", max_results=1000, page_token=page
                )
                children.extend(found)
                page = found.token
                if not page:
                    break
        children.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        return [(run.info.run_id, to_record(run)) for run in children]

    def adopt(self, parent_id: str, is_alive: Callable[[str], bool]) -> list[Record]:
        """A study's records, its dead rows closed first: those that still run while their coordinator, of which
        `is_alive` tells, does not."""
        found = self.records(parent_id)
        with store_errors(self.uri):
            for run_id, record in found:
                if record.outcome is not Outcome.KILLED or is_alive(record.facts.get("coordinator", "//0")):
                    continue
                if self.client.get_run(run_id).info.status == "RUNNING":
                    self.client.set_terminated(run_id, "KILLED")
        return [record for _, record in found]

    def open_run(
        self, record: Record, parent_id: str | None, params: Mapping[str, str], config: Mapping[str, Any]
    ) -> RunLog:
        """A row for a run that is about to start. It says `killed` until the run says otherwise, so that the row is
        right however the program ends."""
        begun = record.ended(Outcome.KILLED, "the program ended before this run did")
        tags = {"kind": "run", **tags_of(begun)}
        if parent_id is not None:
            tags[PARENT] = parent_id
        with store_errors(self.uri):
            run = self.client.create_run(self.experiment_id, run_name=record.name, tags=clean_tags(tags))
            run_id = run.info.run_id
            self.client.log_batch(
                run_id, params=[Param(key, value[:6000]) for key, value in redaction.tree(dict(params)).items()]
            )
            self.client.log_text(run_id, redaction.yaml(config), "config.yaml")
        return RunLog(self, run_id)

    def run(self, run_id: str) -> Run:
        """Raises UserError where there is no run of this id."""
        with store_errors(self.uri):
            return self.client.get_run(run_id)

    def fetch(self, run_id: str, artifact: str, folder: Path) -> Path:
        """An artifact, or a folder of them, copied below `folder`."""
        with store_errors(self.uri):
            return Path(self.client.download_artifacts(run_id, artifact, str(folder)))

    def add(self, run_id: str, measurements: Mapping[str, float], files: Sequence[Path], folder: str) -> None:
        """Later findings about a run that has ended."""
        with store_errors(self.uri):
            for key, value in measurements.items():
                self.client.log_metric(run_id, key, value)
            for file in files:
                self.client.log_artifact(run_id, str(file), folder)

    def close_study(self, parent_id: str, status: str) -> None:
        with store_errors(self.uri):
            self.client.set_terminated(parent_id, status)

    def reopen_study(self, parent_id: str) -> None:
        with store_errors(self.uri):
            self.client.update_run(parent_id, status="RUNNING")


class RunLog:
    """What the parent writes down about one run while it goes on, in batches."""

    def __init__(self, store: MlflowStore, run_id: str):
        self.run_id = run_id
        self._store = store
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._pending.extend(Metric(key, float(value), now, step) for key, value in values.items())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            try:
                self.flush()
            except UserError as error:  # a store that is away for a while must not end a training
                log.warning("%s: kept, and tried again later", first_line(error))

    def flush(self) -> None:
        """Write what is pending. What could not be written stays pending."""
        with store_errors(self._store.uri):
            while self._pending:
                self._store.client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]

    def close(self, record: Record, artifacts: Sequence[Path]) -> None:
        """Final values (once each, since MLflow shows the last), tags, files, and the end."""
        self.metrics(0, record.measurements)
        self.flush()
        client = self._store.client
        with store_errors(self._store.uri):
            client.log_batch(
                self.run_id, tags=[RunTag(key, value) for key, value in clean_tags(tags_of(record)).items()]
            )
            for path in artifacts:
                if path.is_dir():
                    client.log_artifacts(self.run_id, str(path), path.name)
                elif path.exists():
                    client.log_artifact(self.run_id, str(path))
            client.set_terminated(self.run_id, _STATUS.get(record.outcome, "FAILED"))


def _quoted(value: str) -> str:
    """A string literal of MLflow's filter language, which has no escape: a value with both kinds of quote cannot be
    asked for."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise UserError(
        f"{value!r} holds both kinds of quotation mark, which MLflow cannot search for; choose another name"
    )


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """One process at a time opens a SQLite store, since the first one creates its tables."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


set_up_mlflow()
