"""Hydra's view of the study engine. Hydra imports this module at every start of any Hydra application in the
environment, so it imports nothing of weight; the engine is in `sweep.study`."""

# No postponed annotations here: Hydra executes this file without registering the module, and dataclasses would look for
# the names of annotations in a module that is not there.
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ParetuneSweeperConf:
    """`hydra.sweeper.*`, with the key names of hydra-optuna-sweeper."""

    _target_: str = "hydra_plugins.paretune.sweeper.ParetuneSweeper"
    storage: str | None = "sqlite:///${hydra.runtime.cwd}/optuna.db"
    study_name: str | None = None
    n_jobs: int = 1
    params: dict[str, Any] | None = None


class ParetuneSweeper(Sweeper):
    """Runs a study by Optuna's ask and tell."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        from sweep.cli import stop
        from sweep.errors import UserError
        from sweep.study.engine import Engine

        try:
            Engine(self.hydra_context, self.task_function, self.config, self.options).sweep(arguments)
        except UserError as error:
            stop(error)


ConfigStore.instance().store(group="hydra/sweeper", name="paretune", node=ParetuneSweeperConf, provider="paretune")
