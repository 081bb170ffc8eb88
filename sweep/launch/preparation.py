"""What is done once before the runs of a model: data and base model made available, the conditions determined."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.config.schema import RunConfig
from sweep.core import console, provenance, redaction
from sweep.core.artifacts import LOG_FILE
from sweep.core.errors import UserError
from sweep.launch import device_leases
from sweep.launch.device_leases import Lease
from sweep.processes import isolated_call

log = logging.getLogger(__name__)
_prepared: dict[str, dict[str, str]] = {}


def prepare(config: Mapping[str, Any]) -> dict[str, str]:
    """Facts of machine and base model (device, resolved precision, digest), the model built or downloaded where it is
    missing. Asked once per process and model.

    Raises:
        UserError: where the model cannot be had.
    """
    key = json.dumps([config["model"], config["task"], config["train"]["precision"]], sort_keys=True)
    if key not in _prepared:
        with tempfile.TemporaryDirectory(prefix="paretune-prepare-") as folder:
            _prepared[key] = _prepare(config, Path(folder, LOG_FILE))
    return _prepared[key]


def _prepare(config: Mapping[str, Any], log_file: Path) -> dict[str, str]:
    def on_event(event: isolated_call.Event) -> None:
        if event.name == "progress":
            label, done, total = event.arguments
            console.show(f"{label} {done}/{total}")
            if done == 1:
                log.info("%s, once: %d steps", label, total)

    env = first_devices(1).env
    try:
        facts = isolated_call.call(
            "sweep.training_run:prepare", _for_child(config), log_file=log_file, env=env, on_event=on_event
        )
    except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
        said = log_file.read_text(errors="replace").strip().splitlines()[-20:] if log_file.exists() else []
        told = getattr(error, "user_error", None)
        detail = told or "\n".join([f"the base model cannot be prepared: {error}", *said])
        raise UserError(redaction.text(detail)) from error
    for line in log_file.read_text(errors="replace").splitlines():
        if "[WARNING]" in line:
            log.warning(line.partition("[WARNING]")[2].strip())
    return facts


def conditions_of(config: RunConfig, plain: Mapping[str, Any], swept: list[str]) -> dict[str, str]:
    """The conditions of a run on this machine."""
    return provenance.conditions(plain, prepare(plain), swept, (f"model.{key}" for key in config.model.location_keys))


def first_devices(count: int) -> Lease:
    """A run sees as many GPUs as it trains on, the first of those that this process may use: over more, the Trainer
    would split each batch, and memory and throughput would be of another set-up."""
    return Lease(devices=tuple(device_leases.visible()[:count]))


def _for_child(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run needs no tracking server, and so gets no credentials."""
    return {**config, "tracking": redaction.tree(config["tracking"])}
