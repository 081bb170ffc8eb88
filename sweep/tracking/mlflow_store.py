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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run

from sweep.core import redaction
from sweep.core.artifacts import CONFIG_FILE
from sweep.core.errors import UserError, first_line
from sweep.core.preflight import sqlite_path
from sweep.core.record import Outcome, Record
from sweep.tracking.errors import store_errors
from sweep.tracking.mlflow_reader import PARENT, STUDY, MlflowReader
from sweep.tracking.record_tags import clean_tags, json_object, tags_of

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
_BATCH = 1000  # metrics that MLflow takes in one call
_CONDITIONS_FILE = "conditions.json"
_STATUS = {Outcome.OK: "FINISHED", Outcome.PRUNED: "FINISHED", Outcome.KILLED: "KILLED"}


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
            self.client.log_dict(run.info.run_id, clean, _CONDITIONS_FILE)
            return run

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

    def adopt(self, parent_id: str, is_alive: Callable[[str], bool]) -> list[Record]:
        """The records of a study, after closing the rows of runs whose coordinator (`Record.facts`) is dead."""
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
        """Create the row of a run that is about to start; `parent_id` is None for a run on its own.

        The row's outcome is `killed` until the run ends, so that the row is right however the program ends.
        """
        started = record.ended(Outcome.KILLED, "the program ended before this run did")
        tags = {"kind": "run", **tags_of(started), **({PARENT: parent_id} if parent_id is not None else {})}
        with store_errors(self.uri):
            run = self.client.create_run(self.experiment_id, run_name=record.name, tags=clean_tags(tags))
            run_id = run.info.run_id
            self.client.log_batch(
                run_id, params=[Param(key, value[:6000]) for key, value in redaction.tree(dict(params)).items()]
            )
            self.client.log_text(run_id, redaction.yaml(config), CONFIG_FILE)
        return RunLog(self, run_id)

    def close_study(self, parent_id: str, status: str) -> None:
        """End the study's parent run with an MLflow status."""
        with store_errors(self.uri):
            self.client.set_terminated(parent_id, status)

    def reopen_study(self, parent_id: str) -> None:
        """Mark the study's parent run as running."""
        with store_errors(self.uri):
            self.client.update_run(parent_id, status="RUNNING")


class RunLog:
    """Writes one run to the store while the run goes on, in batches.

    One call per batch of 1,000 values takes 0.2 s on SQLite and 0.6 s over HTTP; one call per value takes 8 to 121 s.
    """

    def __init__(self, store: MlflowStore, run_id: str):
        self.run_id = run_id
        self._store = store
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at an optimizer step."""
        now = int(time.time() * 1000)
        self._pending.extend(Metric(key, float(value), now, step) for key, value in values.items())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flushed = time.monotonic()
            try:
                self.flush()
            except UserError as error:  # an interruption of the store must not end a training
                log.warning("%s: the values are kept, and written later", first_line(error))

    def flush(self) -> None:
        """Write what is pending. What could not be written stays pending."""
        with store_errors(self._store.uri):
            while self._pending:
                self._store.client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]

    def close(self, record: Record, artifacts: Sequence[Path]) -> None:
        """Write the final values, tags and files, and end the run.

        Each final value is logged once, since MLflow shows the last value of a key.
        """
        self.metrics(0, record.measurements)
        self.flush()
        self._store.annotate(self.run_id, tags=tags_of(record), files=[path for path in artifacts if path.exists()])
        with store_errors(self._store.uri):
            self._store.client.set_terminated(self.run_id, _STATUS.get(record.outcome, "FAILED"))


def _creation_lock(uri: str) -> AbstractContextManager[Any]:
    """One process at a time opens a SQLite store, since the first one creates its tables."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
