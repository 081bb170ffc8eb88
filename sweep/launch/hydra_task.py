"""What Hydra calls for one composed config, under whatever launcher."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sweep.cli import app
from sweep.config.schema import RunConfig, parse, plain_config
from sweep.core import console, redaction
from sweep.core.errors import UserError
from sweep.core.job import LOG_FILE
from sweep.core.record import Outcome, Record
from sweep.core.setting import varied_keys
from sweep.diagnostics import annotate
from sweep.processes import isolated_call

if TYPE_CHECKING:
    from sweep.launch.device_leases import Lease
    from sweep.launch.memory_forecast import MemoryForecaster
    from sweep.launch.run_supervisor import ShouldPrune

log = logging.getLogger(__name__)


class PreparedRun(NamedTuple):
    """A run that may start: its config, parsed and plain, and its folder."""

    config: RunConfig
    plain: dict[str, Any]
    folder: Path


class TrainingTask:
    """The function that Hydra calls for one composed config: the config → its Record.

    A launcher that keeps several runs going calls the two halves itself. `prepare` reads Hydra's global state, so one
    thread at a time; `run` waits for the run's process.
    """

    should_prune: ShouldPrune | None = None  # asked at each evaluation; set by the study

    def __call__(self, composed: DictConfig) -> Record:
        """Run the config on the first device. Outside a study, report it and exit: 0 where the run gave a result."""
        isolated_call.warm_up()
        alone = HydraConfig.get().mode != RunMode.MULTIRUN
        try:
            ready = self.prepare(composed)
            in_study = ready.config.study.trial is not None
            record = self.run(ready, None) if in_study else self._run_alone(ready)
        except UserError as error:
            if alone:
                app.exit_with_error(error)
            raise
        if alone:
            raise SystemExit(0 if record.outcome is Outcome.OK else 1)
        return record

    def _run_alone(self, ready: PreparedRun) -> Record:
        log.info("%s · seed %s: its log is %s", ready.config.variant.name, ready.config.seed, ready.folder / LOG_FILE)
        with console.Progress(1):
            record = self.run(ready, None)
        log.info("\n".join([console.line(record), *annotate.lines(record)]))
        return record

    def prepare(self, composed: DictConfig) -> PreparedRun:
        plain = plain_config(composed)
        hydra = HydraConfig.get()
        if plain["study"]["swept"] is None:
            plain["study"]["swept"] = varied_keys(hydra.overrides.task)
        config = parse(plain)
        folder = Path(hydra.runtime.output_dir)
        _save_composed(folder / ".hydra", plain, hydra)
        return PreparedRun(config, plain, folder)

    def run(self, ready: PreparedRun, lease: Lease | None) -> Record:
        """Run it in a process of its own. In a study the sweeper has made the parent run; alone there is none.

        Raises:
            UserError: where the run could not even begin.
        """
        from sweep.launch.run_supervisor import store, supervise  # MLflow: seconds, while the fork server imports

        config = ready.config
        parent_id = None
        if config.study.trial is not None:
            parent = store(config.tracking).find_study(str(config.study.name))
            if parent is None:
                raise UserError(f"study {config.study.name} has no parent run in {redaction.text(config.tracking.uri)}")
            parent_id = parent.info.run_id
        forecaster = self.forecaster() if predicts_memory(config) else None
        return supervise(config, ready.plain, ready.folder, parent_id, lease, self.should_prune, forecaster)

    @functools.cache  # noqa: B019  there is one, as long as the process
    def forecaster(self) -> MemoryForecaster:
        """What is known beforehand of memory, shared by the runs of this process."""
        from sweep.launch.memory_forecast import MemoryForecaster

        return MemoryForecaster()


def predicts_memory(config: RunConfig) -> bool:
    """Whether memory is predicted: in a study, unless told otherwise."""
    return config.study.predict_memory and config.study.trial is not None


task = TrainingTask()


def _save_composed(folder: Path, plain: dict[str, Any], hydra: Any) -> None:
    """What Hydra saves in `.hydra/`, with credentials masked."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "config.yaml": plain,
        "hydra.yaml": {"hydra": OmegaConf.to_container(hydra, resolve=False)},
        "overrides.yaml": list(hydra.overrides.task),
    }
    for name, part in parts.items():
        (folder / name).write_text(redaction.yaml(part))
