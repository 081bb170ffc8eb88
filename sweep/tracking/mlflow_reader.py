"""Reads one experiment of a tracking store: `sweep` and `analysis` share this reader."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag, ViewType
from tqdm import tqdm

from sweep.core import preflight, redaction
from sweep.core.errors import UserError
from sweep.core.overrides import shell_override
from sweep.core.record import Record
from sweep.tracking.errors import set_up_mlflow, store_errors
from sweep.tracking.record_tags import clean_tags, fault_of, to_record

log = logging.getLogger(__name__)

PARENT = "mlflow.parentRunId"
STUDY = "study"
_LOCATIONS = ("artifact_location", "artifact_uri")  # of an experiment and of a run, in MLflow's SQLite file
_PAGE = 5000  # runs per request; each request costs a query


class MlflowReader:
    """One experiment of a tracking store. The reader creates no store, experiment or run; it can annotate runs."""

    def __init__(self, uri: str, experiment: str):
        """Raises UserError where there is no such store or experiment, or the experiment was deleted."""
        preflight.require_store(uri)
        self.uri = uri
        with store_errors(uri):
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
        if found is None:
            name = redaction.text(uri)
            raise UserError(f"{name} has no experiment {experiment}; name another one with tracking.experiment=…")
        if found.lifecycle_stage == "deleted":
            raise UserError(
                f"tracking.experiment = {experiment} was deleted in this store; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}), or choose another name"
            )
        self.experiment_id = found.experiment_id
        self._artifact_location = str(found.artifact_location)

    def misplaced(self, artifacts: str | None) -> str:
        """A sentence where a SQLite store keeps files in another folder than `artifacts`, and what to do; else empty.

        MLflow stores the absolute path of a new experiment, so that a moved or copied project still uses the old path.
        """
        file, stored = preflight.sqlite_path(self.uri), self._artifact_location
        parts = urlsplit(stored)
        if file is None or not artifacts or parts.scheme not in ("", "file"):
            return ""
        # What follows a question mark is no part of the folder's name in an artifact location.
        there, wanted = Path(unquote(parts.path)), Path(artifacts.partition("?")[0]).absolute()
        if there.resolve() == wanted.resolve():
            return ""
        changes = [f"{column} = replace({column}, {_sql(stored)}, {_sql(wanted.as_uri())})" for column in _LOCATIONS]
        statement = f"update experiments set {changes[0]}; update runs set {changes[1]};"
        state = "exists" if there.is_dir() else "does not exist"
        return (
            f"The files of this store's runs are in {there}, which {state}, and tracking.artifacts = {wanted}. If the "
            f"project was moved or copied, correct the store: {shlex.join(['sqlite3', str(file), statement])} "
            f"To keep the folder: {shell_override('tracking.artifacts', there)}"
        )

    def search(self, query: str, limit: int | None = None, label: str | None = None) -> list[Run]:
        """All runs that match a query of MLflow's filter language, or the first `limit` of them. With a `label`, a
        terminal shows a progress bar."""
        found: list[Run] = []
        size, token = limit or _PAGE, None
        hidden = label is None or not sys.stderr.isatty()
        with store_errors(self.uri), tqdm(desc=label, unit=" runs", leave=False, disable=hidden) as bar:
            while True:
                page = self.client.search_runs([self.experiment_id], query, max_results=size, page_token=token)
                found.extend(page)
                bar.update(len(page))
                token = page.token
                if not token or limit:
                    return found

    def studies(self, name: str | None = None) -> list[Run]:
        """The parent runs of all studies, or of those called `name`, latest first."""
        query = "tags.kind = 'study'"
        if name is not None and "'" not in name:  # MLflow's filter language has no escape
            query += f" and tags.`{STUDY}` = '{name}'"
        named = [run for run in self.search(query) if STUDY in run.data.tags]
        found = [run for run in named if name is None or run.data.tags[STUDY] == name]
        return sorted(found, key=lambda run: -run.info.start_time)

    def find_study(self, name: str) -> Run | None:
        """The parent run of a study, or None."""
        return next(iter(self.studies(name)), None)

    def deleted_studies(self, name: str) -> list[str]:
        """The ids of the rows of a study that were deleted and can be restored, latest first."""
        found = [run for run in self._deleted("tags.kind = 'study'") if run.data.tags.get(STUDY) == name]
        return [run.info.run_id for run in sorted(found, key=lambda run: -run.info.start_time)]

    def deleted_below(self, parent_id: str) -> set[str]:
        """The ids of the rows below a study's row that were deleted."""
        return {run.info.run_id for run in self._deleted(f"tags.`{PARENT}` = '{parent_id}'")}

    def _deleted(self, query: str) -> list[Run]:
        with store_errors(self.uri):
            return list(self.client.search_runs([self.experiment_id], query, ViewType.DELETED_ONLY, _PAGE))

    def children(self, parent_id: str, limit: int | None = None, label: str | None = None) -> list[Run]:
        """The rows below a study's row, in order of their start. `limit` and `label` are those of `search`."""
        found = self.search(f"tags.`{PARENT}` = '{parent_id}'", limit, label)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def runs(self, parent_id: str, limit: int | None = None, label: str | None = None) -> tuple[list[Run], list[str]]:
        """The runs of a study, in order of their start, and a sentence for each row that is none and is left out.
        `limit` and `label` are those of `search`."""
        rows = self.children(parent_id, limit, label)
        faults = {row.info.run_id: fault_of(row) for row in rows}
        return [row for row in rows if not faults[row.info.run_id]], [fault for fault in faults.values() if fault]

    def records(self, parent_id: str) -> list[tuple[str, Record]]:
        """(run id, Record) of every run of a study, in order of their start. Logs a warning for each row that is left
        out."""
        runs, left_out = self.runs(parent_id)
        for sentence in left_out:
            log.warning("%s", sentence)
        return [(run.info.run_id, to_record(run)) for run in runs]

    def run(self, run_id: str) -> Run:
        """Raises UserError where there is no run of this id."""
        with store_errors(self.uri):
            return self.client.get_run(run_id)

    def history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """(step, value) of a measurement that was logged by step."""
        with store_errors(self.uri):
            return [(metric.step, metric.value) for metric in self.client.get_metric_history(run_id, key)]

    def fetch(self, run_id: str, artifact: str, folder: Path) -> Path:
        """Copy an artifact, or a folder of artifacts, into `folder`."""
        with store_errors(self.uri):
            return Path(self.client.download_artifacts(run_id, artifact, str(folder)))

    def find_file(self, run_id: str, artifact_uri: str, name: str) -> Path | None:
        """The file of one artifact, or None where the run has none. A file of a local store is not copied."""
        parts = urlsplit(artifact_uri)
        if parts.scheme in ("", "file"):
            file = Path(unquote(parts.path)) / name
            return file if file.is_file() else None
        try:
            with store_errors(self.uri):
                return Path(self.client.download_artifacts(run_id, name))
        except UserError:
            return None

    def annotate(
        self,
        run_id: str,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        measurements: Mapping[str, float] | None = None,
        files: Sequence[Path] = (),
        folder: str | None = None,
    ) -> None:
        """Add to a run: a new name, tags with secrets masked, measurements, and files and folders as artifacts.

        `folder` is the place of the files among the artifacts; None is the top.
        """
        now = int(time.time() * 1000)
        with store_errors(self.uri):
            if name is not None:
                self.client.update_run(run_id, name=redaction.text(name))
            self.client.log_batch(
                run_id,
                metrics=[Metric(key, value, now, 0) for key, value in (measurements or {}).items()],
                tags=[RunTag(key, value) for key, value in clean_tags(tags or {}).items()],
            )
            for path in files:
                if path.is_dir():
                    self.client.log_artifacts(run_id, str(path), "/".join(filter(None, (folder, path.name))))
                else:
                    self.client.log_artifact(run_id, str(path), folder)

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        """Set tags on the experiment."""
        with store_errors(self.uri):
            for key, value in tags.items():
                self.client.set_experiment_tag(self.experiment_id, key, value)


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


set_up_mlflow()
