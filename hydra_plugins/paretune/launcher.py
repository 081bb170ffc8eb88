"""The device pool as a Hydra launcher. Every Hydra application imports this module at its start, so that it imports
nothing heavy."""

# No postponed annotations: see sweeper.py.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ParetuneLauncherConf:
    """`hydra.launcher.*`: which GPUs, how many for one run, and how many runs at a time without a GPU (null: the
    sweeper's n_jobs)."""

    _target_: str = "hydra_plugins.paretune.launcher.ParetuneLauncher"
    devices: Any = "auto"
    """GPUs to use: a list of their numbers in nvidia-smi (`0:1` is the second MIG slice of GPU 0) or of their UUIDs.
    `auto` is the visible GPUs of one kind, that with the most memory."""
    share_devices: bool = False
    """Whether a run may use a GPU that another run of this machine uses. They disturb each other's time, energy and
    memory."""
    devices_per_run: int = 1
    """GPUs that one run leases; `train.devices_per_run` counts if it is larger."""
    slots: int | None = None
    """Runs at a time on a machine without a GPU; null is `hydra.sweeper.n_jobs`."""


class ParetuneLauncher(Launcher):
    """Runs jobs in processes of their own, one per device (or slot) at a time. A free device gets the next job at
    once."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def open_pool(self, slots: int | None = None, devices_per_run: int = 1, with_configs: int | None = None) -> Any:
        """A pool that takes one job at a time: a free device never waits for a batch. The launcher's own config has
        priority over `slots` (jobs at a time without a GPU), and may ask for more devices per run. The returned values
        of the first `with_configs` jobs include their configs; None is all jobs."""
        from hydra.core.utils import configure_log, setup_globals

        from sweep.config.hydra_options import launcher_options
        from sweep.hydra_compat.isolated_job import Application
        from sweep.launch.device_leases import leases
        from sweep.launch.job_pool import JobPool

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        options = launcher_options(self.options)
        leased = leases(options.devices, options.slots or slots, max(devices_per_run, options.devices_per_run))
        return JobPool(Application(self.task_function, self.hydra_context, self.config), leased, with_configs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        returned: dict[int, JobReturn] = {}
        with self.open_pool() as pool:
            for number, overrides in enumerate(job_overrides):
                while not pool.free:
                    returned.update(self._ended(pool))
                pool.submit(number, overrides, initial_job_idx + number)
            while len(returned) < len(job_overrides):
                returned.update(self._ended(pool))
        return [returned[number] for number in range(len(job_overrides))]

    @staticmethod
    def _ended(pool: Any) -> dict[int, JobReturn]:
        ended = {}
        for tag, value, error in pool.wait():
            if error is not None:
                raise error
            ended[tag] = value
        return ended


ConfigStore.instance().store(group="hydra/launcher", name="paretune", node=ParetuneLauncherConf, provider="paretune")
