"""The parent's half of a run: a row in MLflow before it, a process of its own for it, the row closed after it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sweep.config.schema import RunConfig
from sweep.core import console, formatting, process_identity, provenance, redaction
from sweep.core.artifacts import EXAMPLES_FILE, LOG_FILE, SNAPSHOT_FILE, TIMELINE_FILE, TRACEBACK_FILE, WEIGHTS_FOLDER
from sweep.core.job import RunRequest
from sweep.core.record import LAUNCHED, Outcome, Record
from sweep.core.setting import setting_digest, setting_name
from sweep.diagnostics import annotate
from sweep.launch import device_leases
from sweep.launch.device_leases import Lease
from sweep.launch.memory_forecast import MemoryForecaster
from sweep.launch.preparation import _for_child, conditions_of, first_devices, prepare
from sweep.memory.prediction_metrics import with_error, with_prediction
from sweep.processes import isolated_call
from sweep.tracking.mlflow_store import MlflowStore, RunLog
from sweep.tracking.options import Tracking

log = logging.getLogger(__name__)
# run, step, score, its standard error, peak bytes so far → why to stop
ShouldPrune = Callable[[Record, int, float, float, float | None], str | None]
_PARAMS = ("variant", "train", "seed", "task.data", "task.score", "task.max_new_tokens")


@cache
def store(tracking: Tracking) -> MlflowStore:
    """The tracking store, opened once per process."""
    return MlflowStore(tracking.uri, tracking.experiment, tracking.artifacts)


def supervise(
    config: RunConfig,
    plain: Mapping[str, Any],
    folder: Path,
    parent_id: str | None,
    lease: Lease | None = None,
    should_prune: ShouldPrune | None = None,
    forecaster: MemoryForecaster | None = None,
) -> Record:
    """Run `config` in a process of its own on the leased devices, and log it. `plain` is the same config as containers.
    `should_prune` is asked at each evaluation whether the run should stop. What `forecaster` tells is logged with the
    run, and how far off it was; where it says that the run cannot fit, the run is out of memory without being launched.

    Returns the Record however the run ended. A Ctrl-C ends the child, closes the row as `killed`, and goes on up.
    """
    lease = lease or first_devices(config.train.devices_per_run)
    folder.mkdir(parents=True, exist_ok=True)
    swept = list(config.study.swept or [])
    facts = prepare(plain)
    conditions = conditions_of(config, plain, swept)
    record = Record(
        variant=config.variant.name,
        setting=setting_name(plain, swept),
        seed=config.seed,
        outcome=Outcome.KILLED,
        study=config.study.name if config.study.trial is not None else None,
        trial=config.study.trial,
        conditions_hash=provenance.fingerprint(conditions),
        facts={
            "setting_digest": setting_digest(plain, swept),
            "metric": config.task.score,
            "direction": "maximize" if config.task.higher_is_better else "minimize",
            "device": facts["device"],
            "conditions": json.dumps(conditions),
            "commit": provenance.commit() or "unknown",
            "command": provenance.command(),
            "coordinator": process_identity.identity(),
            "learning_rate_multiplier": str(config.study.learning_rate_multiplier),
            **{f"version.{name}": version for name, version in provenance.versions().items()},
        },
    )
    clean = redaction.tree(plain)
    row = store(config.tracking).open_run(record, parent_id, _params(plain), clean)
    data = config.task.data.pinned(plain["task"]["data"], facts)
    model = config.model.pinned(plain["model"], facts)
    pinned = {**_for_child(plain), "model": model, "task": {**plain["task"], "data": data}}
    others = device_leases.bytes_in_use(lease.devices)
    if others:
        log.warning("%s: others already hold %s on %s", record.name, formatting.gib(others), lease)
        record = replace(record, measurements={"memory/preexisting_bytes": others})
    prediction = forecaster.predict(plain) if forecaster is not None else None
    record = with_prediction(record, prediction)
    hopeless = forecaster.skip_reason(prediction, config.study) if forecaster is not None else None
    if hopeless is not None:
        record = replace(record, facts={**record.facts, LAUNCHED: "false"})
        record = annotate.remarked(record.ended(Outcome.OOM, hopeless), config, plain, facts["precision"])
        _close(row, record, folder)
        return record
    try:
        record = _run(RunRequest(config=pinned, record=record, folder=str(folder)), row, lease, should_prune)
    except KeyboardInterrupt:
        _close(row, record.ended(Outcome.KILLED, "interrupted by Ctrl-C"), folder)
        raise
    record = with_error(annotate.remarked(record, config, plain, facts["precision"]))
    if forecaster is not None:
        forecaster.update_correction(record)
    _close(row, record, folder)
    return record


def _run(job: RunRequest, row: RunLog, lease: Lease, should_prune: ShouldPrune | None) -> Record:
    def on_event(event: isolated_call.Event) -> str | None:
        if event.name == "metrics":
            row.metrics(*event.arguments)
        elif event.name == "should_prune":
            step, score, *_ = event.arguments
            row.metrics(step, {"eval/score": score})
            return should_prune(job.record, *event.arguments) if should_prune is not None else None
        else:
            label, done, total = event.arguments
            console.show(f"{job.record.name}: {label} {done}/{total}")
        return None

    try:
        log_file = Path(job.folder, LOG_FILE)
        count = int(job.config["train"]["devices_per_run"])
        target = "sweep.training_run:run" if count == 1 else "sweep.launch.multi_gpu_run:run"
        env = replace(lease, devices=lease.devices[:count]).env  # one that sees more would be split over them
        return isolated_call.call(target, job, log_file=log_file, env=env, on_event=on_event)
    except isolated_call.ChildFailed as error:
        Path(job.folder, TRACEBACK_FILE).write_text(redaction.text(error.traceback))
        return job.record.ended(Outcome.FAILED, str(error))
    except isolated_call.Stopped:
        return job.record.ended(Outcome.KILLED, "interrupted by Ctrl-C")
    except isolated_call.ChildKilled as error:
        died = replace(job.record, facts={**job.record.facts, "exit_kind": "crashed"})
        return died.ended(Outcome.OOM if error.host_oom else Outcome.KILLED, str(error))


def _close(row: RunLog, record: Record, folder: Path) -> None:
    """Masked before it is stored anywhere: what a library printed may hold a credential."""
    for name in (LOG_FILE, TRACEBACK_FILE):
        redaction.file(folder / name)
    clean = redaction.tree({**record.as_dict(), "run_id": row.run_id})
    (folder / "record.json").write_text(json.dumps(clean, indent=1))
    names = (WEIGHTS_FOLDER,) if record.outcome is Outcome.OK else (LOG_FILE, TRACEBACK_FILE)
    row.close(record, [folder / name for name in (EXAMPLES_FILE, TIMELINE_FILE, SNAPSHOT_FILE, *names)])
    shutil.rmtree(folder / WEIGHTS_FOLDER, ignore_errors=True)  # kept by the store: not on the disk twice


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """The 20 to 35 that vary or matter. The whole config is an artifact."""
    flat = provenance.flatten(config)
    wanted = {k: v for k, v in flat.items() if any(k == p or k.startswith(f"{p}.") for p in _PARAMS)}
    return {key: value for key, value in wanted.items() if not key.endswith("_target_") and value != "None"}
