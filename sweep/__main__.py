"""`python -m sweep`: one run, or with `-m` a study. Nothing heavy is imported before the config is known to be good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep import cli, preflight, redact
from sweep.config import parse, plain_config
from sweep.errors import ConfigError, Fault, UserError, first_line
from sweep.study.setting import select

CONF = Path(__file__).resolve().parent.parent / "conf"


class _Supervised:
    """`sweep.launch.task.supervised`, imported when it is wanted. Its being there tells our launcher and our sweeper
    that this application's jobs are training runs, each in a process of its own already."""

    def __getattr__(self, name: str) -> Any:
        from sweep.launch.task import supervised

        return getattr(supervised, name)

    def judged_by(self, referee: Any) -> None:
        from sweep.launch.task import supervised

        supervised.referee = referee


def task(composed: DictConfig) -> Any:
    from sweep.launch.task import exit_code, run_task

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_task(composed)
    try:
        record = run_task(composed)
    except UserError as error:
        cli.stop(error)
    raise SystemExit(exit_code(record))


task.supervised = _Supervised()
application = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)


def examine(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """Faults of values, folders and stores of one composed config."""
    try:
        plain = plain_config(composed)
    except OmegaConfBaseException as error:
        yield Fault(str(getattr(error, "full_key", None) or "config"), "", first_line(error))
        return
    try:
        parse(plain)
    except ConfigError as error:
        yield from error.faults
    verbose = OmegaConf.select(composed, "hydra.verbose")
    if not isinstance(verbose, bool | str | ListConfig):
        yield Fault("hydra.verbose", str(verbose), "must be true, false, or names of loggers")
    folder_key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    try:
        folder = OmegaConf.select(composed, folder_key)
        storage = OmegaConf.select(composed, "hydra.sweeper.storage") if multirun else None
    except OmegaConfBaseException as error:
        yield Fault(str(getattr(error, "full_key", None) or folder_key), "", first_line(error))
        return
    if not isinstance(folder, str) or not folder.strip():
        yield Fault(folder_key, str(folder), "must name a folder")
    else:
        yield from preflight.output_fault(folder_key, folder)
    if multirun and storage and storage == select(plain, "tracking.uri"):
        yield Fault(
            "hydra.sweeper.storage", redact.text(str(storage)), "is MLflow's too; Optuna needs a database of its own"
        )
    for key, uri in {"tracking.uri": select(plain, "tracking.uri"), "hydra.sweeper.storage": storage}.items():
        if isinstance(uri, str):
            yield from preflight.store_fault(key, uri)


def main() -> None:
    cli.guarded(application, CONF, "config", examine)


if __name__ == "__main__":
    main()
