"""Hydra's jobs on leased devices, one job at a time. Hydra's own launchers take batches."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from sweep.hydra_compat import isolated_job
from sweep.hydra_compat.isolated_job import Application
from sweep.launch.device_leases import Lease
from sweep.launch.device_pool import Answered, Finished, Pool
from sweep.launch.hydra_task import TrainingTask
from sweep.processes.isolated_call import ChildFailed, ChildKilled, ForkServer, training_server

log = logging.getLogger(__name__)


class JobPool:
    """Jobs in processes of their own, one per lease at a time. A training task runs in a thread of this process and
    starts a process itself. Any other application runs completely in a process. The returned values of the first
    `with_configs` jobs include their configs; None is all jobs."""

    def __init__(self, application: Application, leases: Sequence[Lease], with_configs: int | None = None):
        self._application = application
        self._training = application.task_function if isinstance(application.task_function, TrainingTask) else None
        if self._training:
            self._training.leases = leases
        self._with_configs = itertools.count() if with_configs is None else iter(range(with_configs))
        self.places = ", ".join(
            f"{lease} × {count}" if count > 1 else str(lease) for lease, count in Counter(leases).items()
        )
        self._composing = threading.Lock()  # Hydra's resolvers read one config per process
        self._open = ExitStack()
        self._server = training_server() if self._training else ForkServer(f"{isolated_job.__name__}:unpack")
        self._pool = Pool(leases, self._server)

    @property
    def free(self) -> int:
        return self._pool.free

    @property
    def running(self) -> int:
        return self._pool.running

    def submit(self, tag: Any, overrides: Sequence[str], number: int) -> None:
        """Start a job on the next free lease."""
        overrides = list(overrides)
        if self._training:
            self._pool.submit(tag, lambda lease, answered: self._supervise(overrides, number, lease))
            return
        try:
            composed = isolated_job.dump(self._composed(overrides, number))
        except (HydraException, OmegaConfBaseException) as error:
            failed = _returned(overrides, error)
            self._pool.submit(tag, lambda lease, answered: failed)
            return
        arguments = (self._packed, composed, next(self._with_configs, None) is not None)
        self._pool.submit(tag, lambda lease, answered: self._isolate(overrides, arguments, lease, answered))

    def _composed(self, overrides: list[str], number: int) -> DictConfig:
        loader, config = self._application.context.config_loader, self._application.config
        return isolated_job.numbered(loader.load_sweep_config(config, overrides), number)

    def wait(self) -> list[Finished]:
        """Jobs that have ended, at least one; the value of each is a JobReturn."""
        return self._pool.wait()

    def __enter__(self) -> JobPool:
        if not self._training:
            self._packed = self._open.enter_context(isolated_job.packed(self._application))
            self._server.start(self._packed)
        gc.freeze()  # garbage collections between jobs do not visit imported modules
        self._open.callback(gc.unfreeze)
        self._open.enter_context(self._pool)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def _isolate(self, overrides: list[str], arguments: tuple[Any, ...], lease: Lease, answered: Answered) -> Any:
        def on_answer(answer: isolated_job.Answer) -> None:
            loaded = isolated_job.load(answer)
            answered(_returned(overrides, loaded) if isinstance(loaded, isolated_job.JobFailed) else loaded)

        try:
            env = lease.env if lease.gpus else {}
            return self._server.call(f"{isolated_job.__name__}:run", *arguments, env=env, on_answer=on_answer)
        except ChildFailed as error:
            return _returned(overrides, isolated_job.JobFailed(str(error), error.traceback))
        except ChildKilled as error:
            return _returned(overrides, isolated_job.JobFailed(str(error)))

    def _supervise(self, overrides: list[str], number: int, lease: Lease) -> JobReturn:
        context, task_function = self._application.context, self._application.task_function
        with self._composing:
            composed = self._composed(overrides, number)
            HydraConfig.instance().set_config(composed)
            folder = isolated_job.folder_of(composed).absolute()
            with read_write(composed.hydra.runtime), open_dict(composed.hydra.runtime):
                composed.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(composed)  # it keeps a copy
            context.callbacks.on_job_start(config=composed, task_function=task_function)
            ready = self._training.prepare(composed, lease)
        try:
            returned = _returned(overrides, self._training.run(ready))
        except Exception as error:  # noqa: BLE001  Hydra's contract: a job's exception is its return value
            returned = _returned(overrides, error)
        with self._composing:
            context.callbacks.on_job_end(config=composed, job_return=returned)
        return returned


def _returned(overrides: list[str], value: Any) -> JobReturn:
    status = JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED
    returned = JobReturn(overrides=overrides, status=status)
    returned.return_value = value
    return returned
