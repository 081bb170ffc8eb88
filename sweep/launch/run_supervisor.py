"""The parent's half of a run: open a row in MLflow, run the training in a process of its own, and close the row."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sweep.core import console, formatting, process_identity, provenance, redaction
from sweep.core.artifacts import LOG_FILE, TRACEBACK_FILE, WEIGHTS_FOLDER
from sweep.core.errors import UserError, first_line
from sweep.core.record import FOLDER, LAUNCHED, ROW, UNSENT, Outcome, Record
from sweep.core.run_request import RunRequest
from sweep.core.setting import setting_digest, setting_name
from sweep.diagnostics import annotate
from sweep.launch import device_leases
from sweep.launch.crash import outcome_of_crash
from sweep.launch.device_leases import Lease
from sweep.launch.memory_forecast import MemoryForecaster
from sweep.launch.preparation import PreparedRun
from sweep.memory.prediction_metrics import with_error, with_prediction
from sweep.processes import isolated_call
from sweep.tracking.copies import CopiedLog
from sweep.tracking.mlflow_store import MlflowStore, RunLog, files_of
from sweep.tracking.options import Tracking

log = logging.getLogger(__name__)
# run, step, score, its standard error, peak bytes so far → the reason to stop, or None
ShouldPrune = Callable[[Record, int, float, float, float | None], str | None]
_PARAMS = ("variant", "train", "seed", "task.data", "task.score", "task.max_new_tokens")


@cache
def store(tracking: Tracking) -> MlflowStore:
    """The tracking store, opened once per process."""
    unused = os.environ.get("MLFLOW_TRACKING_URI", tracking.uri)
    if unused != tracking.uri:
        log.warning(
            "MLFLOW_TRACKING_URI = %s is set and is not used: runs go to %s. tracking=server takes it",
            redaction.text(unused), redaction.text(tracking.uri),
        )  # fmt: skip
    return MlflowStore(tracking.uri, tracking.experiment, tracking.artifacts)


def run_supervised(
    run: PreparedRun,
    parent_id: str | None = None,
    should_prune: ShouldPrune | None = None,
    forecaster: MemoryForecaster | None = None,
) -> Record:
    """Run in a process of its own on the leased devices, and log the run.
    `parent_id` is the study's row, None outside a study. Without `forecaster`, a run that cannot fit is launched too.

    Returns the Record, however the run ended. Ctrl-C ends the child, closes the row as `killed`, and is raised again.
    """
    lease = run.lease.first(run.config.train.devices_per_run)  # the Trainer would split a run over more devices
    run.folder.mkdir(parents=True, exist_ok=True)
    record, in_study = new_record(run), parent_id is not None
    whole = run.with_max_length()
    if not in_study:
        store(run.config.tracking).close_abandoned()
    row = _open_row(whole, record, parent_id)
    others = device_leases.bytes_in_use(lease.gpus)
    if others:
        log.warning("%s: other processes already hold %s on %s", record.name, formatting.gib(others), lease)
        record = record.added({"memory/preexisting_bytes": others})
    skip_reason = None
    if forecaster is not None:
        prediction = forecaster.predict(run.plain)
        record = with_prediction(record, prediction)
        skip_reason = forecaster.skip_reason(prediction, run.config.study)
    if skip_reason is not None:
        record = record.added({}, {LAUNCHED: "false"}).ended(Outcome.OOM, skip_reason)
    else:
        request = RunRequest(config=whole.pinned(), record=record, folder=str(run.folder))
        try:
            record = _launch(request, row, lease, should_prune)
        except KeyboardInterrupt:
            close_run(row, record.ended(Outcome.KILLED, "interrupted by Ctrl-C"), run.folder, may_wait=in_study)
            raise
    record = with_error(annotate.remarked(record, whole.config, whole.plain, run.preparation.facts["precision"]))
    if forecaster is not None:
        forecaster.update_correction(record)
    return close_run(row, record, run.folder, may_wait=in_study)


def _open_row(run: PreparedRun, record: Record, parent_id: str | None) -> RunLog | CopiedLog:
    tracking = run.config.tracking
    row = store(tracking).open_run(record, parent_id, _params(run.plain, run.swept), run.plain)
    if not tracking.also:
        return row
    return CopiedLog(row, record, tracking.also, run.folder, run.plain, tracking.experiment)


def new_record(run: PreparedRun) -> Record:
    """The record of a run that has not started. It states `killed`, until the run has another outcome."""
    config, conditions, preparation = run.config, run.conditions, run.preparation
    return Record(
        variant=config.variant.name,
        setting=setting_name(run.plain, run.swept),
        seed=config.seed,
        outcome=Outcome.KILLED,
        study=config.study.name if config.study.trial is not None else None,
        trial=config.study.trial,
        conditions_hash=provenance.fingerprint(conditions),
        facts={
            "setting_digest": setting_digest(run.plain, run.swept),
            "metric": config.task.score,
            "direction": "maximize" if config.task.higher_is_better else "minimize",
            "device": preparation.facts["device"],
            **({"gpus": ", ".join(gpu.id for gpu in run.lease.gpus)} if run.lease.gpus else {}),
            "conditions": json.dumps(conditions),
            "commit": provenance.commit() or "unknown",
            "command": provenance.command(),
            "coordinator": process_identity.identity(),
            "learning_rate_multiplier": str(config.study.learning_rate_multiplier),
            **{f"version.{name}": version for name, version in provenance.versions().items()},
            **preparation.recorded,
        },
    )


def _launch(request: RunRequest, row: RunLog | CopiedLog, lease: Lease, should_prune: ShouldPrune | None) -> Record:
    def on_event(event: isolated_call.Event) -> str | None:
        if event.name == "metrics":
            row.metrics(*event.arguments)
        elif event.name == "should_prune":
            step, score, *_ = event.arguments
            row.metrics(step, {"eval/score": score})
            return should_prune(request.record, *event.arguments) if should_prune is not None else None
        else:
            label, done, total = event.arguments
            console.show(f"{request.record.name}: {label} {done}/{total}")
        return None

    try:
        log_file = Path(request.folder, LOG_FILE)
        count = int(request.config["train"]["devices_per_run"])
        target = "sweep.training_run:run_training" if count == 1 else "sweep.launch.multi_gpu_run:run"
        return isolated_call.call(target, request, log_file=log_file, env=lease.env, on_event=on_event)
    except isolated_call.ChildFailed as error:
        Path(request.folder, TRACEBACK_FILE).write_text(redaction.text(error.traceback))
        return request.record.ended(Outcome.FAILED, str(error))
    except isolated_call.Stopped:
        return request.record.ended(Outcome.KILLED, "interrupted by Ctrl-C")
    except isolated_call.ChildKilled as error:
        crashed = request.record.added({}, {"exit_kind": "crashed"})
        return crashed.ended(*outcome_of_crash(error, log_file, request.record))


def close_run(row: RunLog | CopiedLog, record: Record, folder: Path, *, may_wait: bool) -> Record:
    """Write `record.json`, store the run's files and close its row. Files and record are redacted first: a library may
    print a credential. With `may_wait`, a row that cannot be written is written later, from the book: the Record
    that is returned says so. Otherwise UserError."""
    for name in (LOG_FILE, TRACEBACK_FILE):
        redaction.file(folder / name)
    clean = redaction.tree({**record.as_dict(), "run_id": row.run_id})
    with _disk_errors_logged(folder):
        (folder / "record.json").write_text(json.dumps(clean, indent=1))
    try:
        row.close(record, [folder / name for name in files_of(record)])
    except UserError as error:
        if not may_wait:
            raise
        log.warning("%s: its end is written later: %s", record.name, first_line(error))
        row.hold(folder)
        return record.added({}, {**_row_of(row), UNSENT: "true", FOLDER: str(folder)})
    shutil.rmtree(folder / WEIGHTS_FOLDER, ignore_errors=True)  # the store has a copy
    return record.added({}, {**_row_of(row), FOLDER: str(folder)})


def _row_of(row: RunLog) -> dict[str, str]:
    return {} if row.run_id is None else {ROW: row.run_id}


@contextmanager
def _disk_errors_logged(folder: Path) -> Iterator[None]:
    """The result of a run must not be lost with its file: log what cannot be written."""
    try:
        yield
    except OSError as error:
        log.warning("%s cannot be written: %s", folder, error.strerror or error)


def _params(config: Mapping[str, Any], swept: Sequence[str]) -> dict[str, str]:
    """The 20 to 35 parameters that vary or matter. The whole config is an artifact."""
    flat = provenance.flatten(config)
    wanted = {k: v for k, v in flat.items() if any(k == p or k.startswith(f"{p}.") for p in (*_PARAMS, *swept))}
    return {key: value for key, value in wanted.items() if not key.endswith("_target_") and value != "None"}
