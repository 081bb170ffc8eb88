"""What Hydra calls for one composed config, under whatever launcher."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sweep import progress, redact, remarks
from sweep.config import RunConfig, parse, plain_config
from sweep.errors import UserError
from sweep.job import LOG_FILE
from sweep.launch import isolation
from sweep.record import Outcome, Record
from sweep.study.setting import varied_keys

if TYPE_CHECKING:
    from sweep.launch.devices import Lease
    from sweep.launch.foresight import Foresight
    from sweep.launch.supervise import Referee

log = logging.getLogger(__name__)


class Ready(NamedTuple):
    """A run that may start: its config, parsed and plain, and its folder."""

    config: RunConfig
    plain: dict[str, Any]
    folder: Path


class Supervised:
    """The two halves of a run for a launcher that keeps several going: `ready` reads Hydra's global state, so one
    thread at a time; `run` waits for the run's process."""

    referee: Referee | None = None  # asked at each evaluation; set by the study

    def ready(self, composed: DictConfig) -> Ready:
        plain = plain_config(composed)
        hydra = HydraConfig.get()
        if plain["study"]["swept"] is None:
            plain["study"]["swept"] = varied_keys(hydra.overrides.task)
        config = parse(plain)
        folder = Path(hydra.runtime.output_dir)
        _save_composed(folder / ".hydra", plain, hydra)
        return Ready(config, plain, folder)

    def run(self, ready: Ready, lease: Lease | None) -> Record:
        """Run it in a process of its own. In a study the sweeper has made the parent run; alone there is none.

        Raises:
            UserError: where the run could not even begin.
        """
        from sweep.launch.supervise import store, supervise  # MLflow: seconds, while the fork server imports

        config = ready.config
        parent_id = None
        if config.study.trial is not None:
            parent = store(config.tracking).find_study(str(config.study.name))
            if parent is None:
                raise UserError(f"study {config.study.name} has no parent run in {redact.text(config.tracking.uri)}")
            parent_id = parent.info.run_id
        foresight = self.foresight() if foresees(config) else None
        return supervise(config, ready.plain, ready.folder, parent_id, lease, self.referee, foresight)

    @functools.cache  # noqa: B019  there is one, as long as the process
    def foresight(self) -> Foresight:
        """What is known beforehand of memory, shared by the runs of this process."""
        from sweep.launch.foresight import Foresight

        return Foresight()


def foresees(config: RunConfig) -> bool:
    """Whether memory is predicted: in a study, unless told otherwise."""
    return config.study.predict and config.study.trial is not None


supervised = Supervised()


def run_task(composed: DictConfig) -> Record:
    """Run one config, on the first device.

    Raises:
        UserError: where the run could not even begin.
    """
    isolation.warm_up()
    ready = supervised.ready(composed)
    if ready.config.study.trial is not None:
        return supervised.run(ready, None)
    log.info("%s · seed %s: its log is %s", ready.config.variant.name, ready.config.seed, ready.folder / LOG_FILE)
    with progress.Progress(1):
        record = supervised.run(ready, None)
    log.info("\n".join([progress.line(record), *remarks.lines(record)]))
    return record


def exit_code(record: Record) -> int:
    """0 where the run gave a result."""
    return 0 if record.outcome is Outcome.OK else 1


def _save_composed(folder: Path, plain: dict[str, Any], hydra: Any) -> None:
    """What Hydra saves in `.hydra/`, with credentials masked."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "config.yaml": plain,
        "hydra.yaml": {"hydra": OmegaConf.to_container(hydra, resolve=False)},
        "overrides.yaml": list(hydra.overrides.task),
    }
    for name, part in parts.items():
        (folder / name).write_text(redact.yaml(part))
