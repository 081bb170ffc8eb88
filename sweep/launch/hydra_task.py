"""The function that Hydra calls for one composed config, with every launcher."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sweep.cli import app
from sweep.config.schema import parse, plain_config
from sweep.core import console, redaction
from sweep.core.artifacts import LOG_FILE
from sweep.core.errors import UserError, disk_errors
from sweep.core.record import Outcome, Record
from sweep.core.setting import varied_keys
from sweep.diagnostics import annotate
from sweep.launch import device_leases, device_locks
from sweep.launch.device_leases import Lease
from sweep.launch.preparation import PreparedRun
from sweep.processes import isolated_call

if TYPE_CHECKING:
    from sweep.launch.memory_forecast import MemoryForecaster
    from sweep.launch.run_supervisor import ShouldPrune
    from sweep.memory import Machine
    from sweep.tracking.options import Tracking

log = logging.getLogger(__name__)


class TrainingTask:
    """The function that Hydra calls for one composed config; it returns the run's Record.

    A launcher that runs several jobs at a time calls `prepare` and `run` itself. `prepare` reads Hydra's global state:
    one thread may call it at a time. `run` waits for the run's process.
    """

    should_prune: ShouldPrune | None = None  # called at each evaluation; set by the study
    leases: Sequence[Lease] = ()  # of this process; set by a launcher that leases devices

    def __call__(self, composed: DictConfig) -> Record:
        """Run the config on the first free device. Outside a study, print the result and exit: 0 for an ok run, else 1.
        Launchers without leases (joblib, submitit) call it in processes of theirs."""
        isolated_call.training_server().start()
        hydra = HydraConfig.get()
        alone = hydra.mode != RunMode.MULTIRUN
        try:
            devices = OmegaConf.select(hydra, "launcher.devices", default="auto")
            shared = bool(OmegaConf.select(hydra, "launcher.share_devices", default=False))
            count = int(composed.train.devices_per_run)
            found = device_leases.leases(devices, devices_per_run=count, share_devices=shared)
            with disk_errors(), device_locks.first_free(found) as lease:
                prepared = self.prepare(composed, lease)
                in_study = prepared.config.study.trial is not None
                record = self.run(prepared) if in_study else self._run_alone(prepared)
        except UserError as error:
            if alone:
                app.exit_with_error(error)
            raise
        if alone:
            raise SystemExit(0 if record.outcome is Outcome.OK else 1)
        return record

    def _run_alone(self, prepared: PreparedRun) -> Record:
        config = prepared.config
        log.info("%s · seed %s: its log is %s", config.variant.name, config.seed, prepared.folder / LOG_FILE)
        with console.Progress(1):
            record = self.run(prepared)
        log.info("\n".join([console.line(record), *annotate.lines(record)]))
        return record

    def prepare(self, composed: DictConfig, lease: Lease) -> PreparedRun:
        plain = plain_config(composed)
        hydra = HydraConfig.get()
        if plain["study"]["swept"] is None:
            plain["study"]["swept"] = varied_keys(hydra.overrides.task)
        config = parse(plain)
        folder = Path(hydra.runtime.output_dir)
        _save_composed(folder / ".hydra", plain, hydra)
        return PreparedRun(config=config, plain=plain, folder=folder, lease=lease)

    def run(self, prepared: PreparedRun) -> Record:
        """Run it in a process of its own, or raise UserError. In a study, the sweeper has created the parent run."""
        # MLflow takes seconds to import; the fork server imports meanwhile.
        from sweep.launch.run_supervisor import run_supervised

        config = prepared.config
        parent_id = None
        if config.study.trial is not None:
            parent_id = self._parent(config.tracking, str(config.study.name))
        forecaster = None
        if parent_id is not None and config.study.predict_memory:
            forecaster = self.forecaster(prepared.preparation.machine)
        return run_supervised(prepared, parent_id, self.should_prune, forecaster)

    @functools.cache  # noqa: B019  one object, which lives as long as the process
    def _parent(self, tracking: Tracking, name: str) -> str:
        """The id of the study's row, asked once: a run may start while the store does not answer."""
        from sweep.launch.run_supervisor import store

        parent = store(tracking).find_study(name)
        if parent is None:
            raise UserError(f"study {name} has no parent run in {redaction.text(tracking.uri)}")
        return parent.info.run_id

    @functools.cache  # noqa: B019  one object, which lives as long as the process
    def forecaster(self, machine: Machine) -> MemoryForecaster:
        """The memory predictions for a device, shared by the runs of this process."""
        from sweep.launch.memory_forecast import MemoryForecaster

        return MemoryForecaster(machine)


task = TrainingTask()


def _save_composed(folder: Path, plain: dict[str, Any], hydra: Any) -> None:
    """Write the files that Hydra saves in `.hydra/`, with credentials masked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(redaction.yaml(plain))
    (folder / "hydra.yaml").write_text(redaction.yaml({"hydra": OmegaConf.to_container(hydra, resolve=False)}))
    (folder / "overrides.yaml").write_text(redaction.yaml(list(hydra.overrides.task)))
