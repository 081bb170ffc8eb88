"""Record ↔ MLflow: what a study writes to its tracking store.

Only the coordinator creates the database, the experiment and a study's parent run. Processes that open a new SQLite
store together corrupt its migration, and an experiment that is created twice at once sends the loser's runs to
"Default" (both seen with MLflow 3.17). All other processes work with ids.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from sweep.core import process_identity, redaction
from sweep.core.artifacts import (
    CONFIG_FILE,
    EXAMPLES_FILE,
    LOG_FILE,
    SNAPSHOT_FILE,
    TIMELINE_FILE,
    TRACEBACK_FILE,
    WEIGHTS_FOLDER,
)
from sweep.core.errors import UserError, first_line
from sweep.core.preflight import sqlite_path
from sweep.core.record import FOLDER, ROW, Outcome, Record
from sweep.tracking.errors import store_errors
from sweep.tracking.mlflow_reader import PARENT, STUDY, MlflowReader
from sweep.tracking.record_tags import clean_tags, json_object, tags_of, to_record

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
_BATCH = 1000  # metrics that MLflow takes in one call
_CONDITIONS_FILE = "conditions.json"
_STATUS = {Outcome.OK: "FINISHED", Outcome.PRUNED: "FINISHED", Outcome.KILLED: "KILLED"}


class Row(NamedTuple):
    """A run as the store has it."""

    run_id: str
    record: Record
    is_running: bool


class MlflowStore(MlflowReader):
    """One experiment of a tracking store, and what a study writes to it."""

    def __init__(self, uri: str, experiment: str, artifacts: str):
        """Open the store. Create the database and the experiment where they do not exist.

        `artifacts` is the folder for files of a new experiment in SQLite; a server has its own.

        Raises:
            UserError: where the store cannot be opened, or keeps its files in another folder than `artifacts`.
        """
        with store_errors(uri), _creation_lock(uri):
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                folder = Path(artifacts).absolute().as_uri() if sqlite_path(uri) is not None else None
                client.create_experiment(experiment, artifact_location=folder)
        super().__init__(uri, experiment)
        self.held: dict[Path, RunLog] = {}  # by the run's folder: runs of this process whose end could not be written
        if misplaced := self.misplaced(artifacts):
            raise UserError(misplaced)

    def create_study(self, name: str, conditions: Mapping[str, str], tags: Mapping[str, str]) -> Run:
        """Create the parent run of a new study."""
        with store_errors(self.uri):
            clean = redaction.tree(dict(conditions))
            run = self.client.create_run(
                self.experiment_id,
                run_name=name,
                tags=clean_tags({"kind": "study", STUDY: name, "conditions": json.dumps(clean), **tags}),
            )
        self.write_conditions(run.info.run_id, clean)
        return run

    def write_conditions(self, parent_id: str, conditions: Mapping[str, str]) -> None:
        """Store the conditions of a study in its row."""
        with store_errors(self.uri):
            self.client.log_dict(parent_id, redaction.tree(dict(conditions)), _CONDITIONS_FILE)

    def study_conditions(self, parent: Run) -> dict[str, str]:
        """The conditions under which the study started, credentials masked."""
        with tempfile.TemporaryDirectory(prefix="paretune-conditions-") as folder:
            text = self.fetch(parent.info.run_id, _CONDITIONS_FILE, Path(folder)).read_text()
        found = json_object(text)
        if found is None:
            raise UserError(
                f"{_CONDITIONS_FILE} of study {parent.info.run_name} is damaged, so that its conditions are unknown; "
                "restore the file, or choose another study.name"
            )
        return found

    def rows(self, parent_id: str) -> list[Row]:
        """The runs below a study's row. Logs a warning for each row that is none."""
        runs, left_out = self.runs(parent_id)
        for sentence in left_out:
            log.warning("%s", sentence)
        return [Row(run.info.run_id, to_record(run), run.info.status == "RUNNING") for run in runs]

    def close_abandoned(self) -> None:
        """Close the rows of runs without a study whose program has died on this machine."""
        query = "tags.kind = 'run' and attributes.status = 'RUNNING'"
        for run in self.search(query):
            if PARENT not in run.data.tags and process_identity.is_gone(run.data.tags.get("coordinator", "")):
                self.end(run.info.run_id, Outcome.KILLED)

    def end(self, run_id: str, outcome: Outcome) -> None:
        """Close the row of a run that ended with this outcome."""
        with store_errors(self.uri):
            self.client.set_terminated(run_id, _STATUS.get(outcome, "FAILED"))

    def open_run(
        self, record: Record, parent_id: str | None, params: Mapping[str, str], config: Mapping[str, Any]
    ) -> RunLog:
        """Create the row of a run that is about to start; `parent_id` is None for a run on its own.

        The row's outcome is `killed` until the run ends, so that the row is right however the program ends. If the
        store does not answer, the row is created later.
        """
        row = RunLog(self, record, parent_id, params, config)
        row.try_to_write()
        return row

    def send(self, record: Record, parent_id: str, folder: Path) -> str:
        """Write a run that ended and that the store lacks: its row, if there is none, and its end. Returns the row's
        id. `folder` has its files, as far as they are still there."""
        row = self.held.get(folder)
        if row is None:
            row = RunLog(self, record, parent_id, {}, None)
            row.run_id = record.facts.get(ROW) if self.has_row(record.facts.get(ROW)) else None
        files = [folder / ".hydra" / CONFIG_FILE, *(folder / name for name in files_of(record))]
        row.close(record, files if record.facts.get(FOLDER) else [])
        self.held.pop(folder, None)
        return str(row.run_id)

    def has_row(self, run_id: str | None) -> bool:
        """Whether there is a row of this id that is not deleted."""
        with store_errors(self.uri):
            try:
                return run_id is not None and self.client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def close_study(self, parent_id: str, status: str) -> None:
        """End the study's parent run with an MLflow status."""
        with store_errors(self.uri):
            self.client.set_terminated(parent_id, status)

    def reopen_study(self, parent_id: str) -> None:
        """Mark the study's parent run as running."""
        with store_errors(self.uri):
            self.client.update_run(parent_id, status="RUNNING")


class RunLog:
    """Writes one run to the store while the run goes on, in batches. While the store does not answer, the values are
    kept: a training does not end with it. `run_id` is None until the row is created.

    One call per batch of 1,000 values takes 0.2 s on SQLite and 0.6 s over HTTP; one call per value takes 8 to 121 s.
    """

    def __init__(
        self, store: MlflowStore, record: Record, parent_id: str | None, params: Mapping[str, str],
        config: Mapping[str, Any] | None,
    ):  # fmt: skip
        self.run_id: str | None = None
        self._store = store
        self._record = record
        self._parent_id = parent_id
        self._params = redaction.tree(dict(params))
        self._config = None if config is None else redaction.yaml(config)  # until it is written
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()
        self._ended = False

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at an optimizer step."""
        now = int(time.time() * 1000)
        self._pending.extend(Metric(key, float(value), now, step) for key, value in values.items())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.try_to_write()

    def try_to_write(self) -> None:
        """Write what is pending, or log that it is kept."""
        try:
            self.flush()
        except UserError as error:
            log.warning("%s: the values are kept, and written later", first_line(error))
        self._flushed = time.monotonic()

    def flush(self) -> None:
        """Create the row if there is none, and write what is pending. What could not be written stays pending."""
        client = self._store.client
        with store_errors(self._store.uri):
            if self.run_id is None:
                self.run_id = self._create()
            if self._config is not None:
                params = [Param(key, value[:6000]) for key, value in self._params.items()]
                client.log_batch(self.run_id, params=params)
                client.log_text(self.run_id, self._config, CONFIG_FILE)
                self._config = None
            while self._pending:
                client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]

    def _create(self) -> str:
        started = self._record.ended(Outcome.KILLED, "the program ended before this run did")
        parent = {PARENT: self._parent_id} if self._parent_id is not None else {}
        tags = clean_tags({"kind": "run", **tags_of(started), **parent})
        run = self._store.client.create_run(self._store.experiment_id, run_name=self._record.name, tags=tags)
        return str(run.info.run_id)

    def hold(self, folder: Path) -> None:
        """Keep what could not be written, for `MlflowStore.send` of the run in this folder."""
        self._store.held[folder] = self

    def close(self, record: Record, artifacts: Sequence[Path]) -> None:
        """Write the final values, files and tags, and end the run. The tag `outcome` comes last: a row that has it has
        everything. Each final value is logged once, since MLflow shows the last value of a key."""
        if not self._ended:
            self._ended = True
            now = int(time.time() * 1000)
            self._pending += [Metric(key, float(value), now, 0) for key, value in record.measurements.items()]
        self.flush()
        run_id = str(self.run_id)
        self._store.annotate(run_id, files=[path for path in artifacts if path.exists()])
        self._store.annotate(run_id, tags=tags_of(record))
        self._store.end(run_id, record.outcome)


def files_of(record: Record) -> list[str]:
    """The names of a run's files that become artifacts."""
    last = [WEIGHTS_FOLDER] if record.outcome is Outcome.OK else [LOG_FILE, TRACEBACK_FILE]
    return [EXAMPLES_FILE, TIMELINE_FILE, SNAPSHOT_FILE, *last]


def _creation_lock(uri: str) -> AbstractContextManager[Any]:
    """One process at a time opens a SQLite store, since the first one creates its tables."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
