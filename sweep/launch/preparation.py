"""What happens once before a run: data and base model become available, and the conditions are determined."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sweep.config.schema import RunConfig
from sweep.core import console, provenance, redaction
from sweep.core.artifacts import LOG_FILE
from sweep.core.errors import ConfigError, Fault, UserError
from sweep.launch.device_leases import Lease
from sweep.memory import Machine
from sweep.processes import isolated_call

log = logging.getLogger(__name__)
MAX_LENGTH = "train.max_length"  # the fact, and the condition that it stands for


class Preparation(NamedTuple):
    """What is known before a run. `facts` of data, model and device are conditions; `recorded` are facts of a GPU's
    software; `machine` is the device that runs are predicted for."""

    facts: Mapping[str, str]
    recorded: Mapping[str, str]
    machine: Machine


_CHECKED = ("optimizer", "lr_scheduler_type", "warmup_ratio", "loss", "callbacks", "arguments")  # by classes of others
_PREPARED: dict[str, Preparation] = {}  # by the parts of the config that matter


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that can start: its config, parsed and as plain containers, its folder and its GPUs."""

    config: RunConfig
    plain: Mapping[str, Any]
    folder: Path
    lease: Lease

    @property
    def swept(self) -> list[str]:
        """The keys that the study varies."""
        return list(self.config.study.swept or [])

    @property
    def preparation(self) -> Preparation:
        return prepare(self.plain, self.lease)

    @property
    def conditions(self) -> dict[str, str]:
        return conditions_of(self.config, self.plain, self.swept, self.preparation)

    def with_max_length(self) -> PreparedRun:
        """This run with the `train.max_length` that `prepare` found, where the config gives none."""
        if MAX_LENGTH not in self.preparation.facts:
            return self
        plain = {**self.plain, "train": {**self.plain["train"], "max_length": _max_length(self.preparation)}}
        return replace(self, plain=plain, config=_with_max_length(self.config, self.preparation))

    def pinned(self) -> dict[str, Any]:
        """The config for the run's process, with the data and the base model that `prepare` found, and without
        credentials."""
        facts = self.preparation.facts
        data = self.config.task.data.pinned(self.plain["task"]["data"], facts)
        model = self.config.model.pinned(self.plain["model"], facts)
        return {**without_credentials(self.plain), "model": model, "task": {**self.plain["task"], "data": data}}


def prepare(config: Mapping[str, Any], lease: Lease) -> Preparation:
    """Build or download a missing base model, and learn what there is to know of it, of the data and of the device. A
    process does this once per model, task, precision and length, on a leased GPU: all its leases are of one kind.
    UserError if the model, the data or the GPU is not usable."""
    train = config["train"]
    parts = [train.get(name) for name in ("precision", "max_length", *_CHECKED)]
    key = json.dumps([config["model"], config["task"], *parts], sort_keys=True)
    if key not in _PREPARED:
        _PREPARED[key] = _prepare(without_credentials(config), lease.first(1))
    return _PREPARED[key]


def _prepare(config: Mapping[str, Any], lease: Lease) -> Preparation:
    def on_event(event: isolated_call.Event) -> None:
        if event.name == "progress":
            label, done, total = event.arguments
            console.show(f"{label} {done}/{total}")
            if done == 1:
                log.info("%s, once: %d steps", label, total)

    with tempfile.TemporaryDirectory(prefix="paretune-prepare-") as folder:
        log_file = Path(folder, LOG_FILE)
        options = {"log_file": log_file, "env": lease.env, "on_event": on_event}
        try:
            found = Preparation(*isolated_call.call("sweep.training_run:prepare", config, **options))
        except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
            last_lines = _lines(log_file)[-20:]
            detail = "\n".join([f"the base model cannot be prepared: {error}", *last_lines])
            raise UserError(redaction.text(getattr(error, "user_error", None) or detail)) from error
        for line in _lines(log_file):
            if "[WARNING]" in line:
                log.warning(line.partition("[WARNING]")[2].strip())
    return found


def _lines(log_file: Path) -> list[str]:
    return log_file.read_text(errors="replace").strip().splitlines() if log_file.exists() else []


def conditions_of(
    config: RunConfig, plain: Mapping[str, Any], swept: list[str], preparation: Preparation
) -> dict[str, str]:
    """The conditions of a run on this machine. Raises ConfigError where the config does not fit what was prepared."""
    if MAX_LENGTH in preparation.facts:
        config = _with_max_length(config, preparation)
    faults = list(config.faults_between())  # again: the base of a Hub id is on this machine now
    examples, size = int(preparation.facts.get("data_examples", config.train.batch_size)), config.train.batch_size
    if size > examples:
        rule = f"the batch of {size} is larger than the {examples} training examples that are left; lower it"
        faults.append(Fault("train.micro_batch_size", str(config.train.micro_batch_size), rule))
    if faults:
        raise ConfigError(faults)
    locations = (f"model.{key}" for key in config.model.location_keys)
    return provenance.conditions(plain, preparation.facts, swept, locations)


def _max_length(preparation: Preparation) -> int:
    return int(preparation.facts[MAX_LENGTH])


def _with_max_length(config: RunConfig, preparation: Preparation) -> RunConfig:
    return replace(config, train=replace(config.train, max_length=_max_length(preparation)))


def without_credentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config for a child process. The child needs no tracking server, and so it gets no credentials."""
    return {**config, "tracking": redaction.tree(config["tracking"])}
