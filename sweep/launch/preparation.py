"""What happens once before a run: data and base model become available, and the conditions are determined."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
_PREPARED: dict[str, Mapping[str, str]] = {}  # facts, by the parts of the config that matter


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that can start: its config, parsed and as plain containers, and its folder."""

    config: RunConfig
    plain: Mapping[str, Any]
    folder: Path

    @property
    def swept(self) -> list[str]:
        """The keys that the study varies."""
        return list(self.config.study.swept or [])

    @property
    def facts(self) -> Mapping[str, str]:
        return prepare(self.plain)

    @property
    def conditions(self) -> dict[str, str]:
        return conditions_of(self.config, self.plain, self.swept)

    def pinned(self) -> dict[str, Any]:
        """The config for the run's process, with the data and the base model that `prepare` found, and without
        credentials."""
        data = self.config.task.data.pinned(self.plain["task"]["data"], self.facts)
        model = self.config.model.pinned(self.plain["model"], self.facts)
        return {**without_credentials(self.plain), "model": model, "task": {**self.plain["task"], "data": data}}


def prepare(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Build or download a missing base model, and return facts of it, of the data and of the machine (the device, the
    resolved precision, digests). A process does this once per model, task and precision. UserError if the model or the
    data are not available."""
    key = json.dumps([config["model"], config["task"], config["train"]["precision"]], sort_keys=True)
    if key not in _PREPARED:
        _PREPARED[key] = _prepare(without_credentials(config))
    return _PREPARED[key]


def _prepare(config: Mapping[str, Any]) -> Mapping[str, str]:
    def on_event(event: isolated_call.Event) -> None:
        if event.name == "progress":
            label, done, total = event.arguments
            console.show(f"{label} {done}/{total}")
            if done == 1:
                log.info("%s, once: %d steps", label, total)

    with tempfile.TemporaryDirectory(prefix="paretune-prepare-") as folder:
        log_file = Path(folder, LOG_FILE)
        options = {"log_file": log_file, "env": first_devices(1).env, "on_event": on_event}
        try:
            facts = isolated_call.call("sweep.training_run:prepare", config, **options)
        except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
            last_lines = _lines(log_file)[-20:]
            detail = "\n".join([f"the base model cannot be prepared: {error}", *last_lines])
            raise UserError(redaction.text(getattr(error, "user_error", None) or detail)) from error
        for line in _lines(log_file):
            if "[WARNING]" in line:
                log.warning(line.partition("[WARNING]")[2].strip())
    return facts


def _lines(log_file: Path) -> list[str]:
    return log_file.read_text(errors="replace").strip().splitlines() if log_file.exists() else []


def conditions_of(config: RunConfig, plain: Mapping[str, Any], swept: list[str]) -> dict[str, str]:
    """The conditions of a run on this machine."""
    return provenance.conditions(plain, prepare(plain), swept, (f"model.{key}" for key in config.model.location_keys))


def first_devices(count: int) -> Lease:
    """The first `count` GPUs that this process may use. A run sees only the GPUs that it trains on: the Trainer would
    split each batch over more, and memory and throughput would be those of another set-up."""
    return Lease(devices=tuple(device_leases.visible()[:count]))


def without_credentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config for a child process. The child needs no tracking server, and so it gets no credentials."""
    return {**config, "tracking": redaction.tree(config["tracking"])}
