"""Reads one experiment of a tracking store: `sweep` and `analysis` share this reader."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from tqdm import tqdm

from sweep.core import preflight, redaction
from sweep.core.errors import UserError
from sweep.core.record import Record
from sweep.tracking.errors import set_up_mlflow, store_errors
from sweep.tracking.record_tags import clean_tags, to_record

PARENT = "mlflow.parentRunId"
STUDY = "study"
_PAGE = 5000  # runs per request; each request costs a query


class MlflowReader:
    """One experiment of a tracking store. The reader creates no store, experiment or run; it can annotate runs."""

    def __init__(self, uri: str, experiment: str):
        """Raises UserError where there is no such store or experiment."""
        preflight.require_store(uri)
        self.uri = uri
        with store_errors(uri):
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
        if found is None:
            name = redaction.text(uri)
            raise UserError(f"{name} has no experiment {experiment}; name another one with tracking.experiment=…")
        self.experiment_id = found.experiment_id

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
        found = [run for run in self.search(query) if name is None or run.data.tags.get(STUDY) == name]
        return sorted(found, key=lambda run: -run.info.start_time)

    def find_study(self, name: str) -> Run | None:
        """The parent run of a study, or None."""
        return next(iter(self.studies(name)), None)

    def children(self, parent_id: str, limit: int | None = None, label: str | None = None) -> list[Run]:
        """The runs of a study, in order of their start. `limit` and `label` are those of `search`."""
        found = self.search(f"tags.`{PARENT}` = '{parent_id}'", limit, label)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def records(self, parent_id: str) -> list[tuple[str, Record]]:
        """(run id, Record) of every run of a study, in order of their start."""
        return [(run.info.run_id, to_record(run)) for run in self.children(parent_id)]

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


set_up_mlflow()
