"""A job of any Hydra application in a process of its own, with all that Hydra promises a job.

The application's function, and the resolvers that it has registered, travel by cloudpickle, since they may live in a
script. The fork server imports this module and nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cloudpickle
from hydra.core.config_loader import ConfigLoader  # noqa: F401  imported once by the server
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from sweep.report import Report


class Application(NamedTuple):
    """What the jobs of a sweep share."""

    task_function: TaskFunction
    context: HydraContext
    config: DictConfig


def pack(application: Application) -> bytes:
    """An application as bytes that `run` takes, with Hydra's state and the registered resolvers."""
    resolvers = {k: v for k, v in BaseContainer._resolvers.items() if k not in _builtin()}
    return cloudpickle.dumps((application, Singleton.get_state(), resolvers))


def run(packed: bytes, overrides: Sequence[str], number: int, report: Report) -> bytes:
    """Run one job as Hydra's own launchers do: its folder, its logging, its environment, its callbacks.

    Returns its JobReturn, pickled: what the application returned, or raised.
    """
    application, state, resolvers = cloudpickle.loads(packed)
    Singleton.set_state(state)
    setup_globals()
    BaseContainer._resolvers.update(resolvers)
    return cloudpickle.dumps(run_here(application, overrides, number))


def run_here(application: Application, overrides: Sequence[str], number: int) -> JobReturn:
    """One job in this process."""
    composed = compose(application, overrides, number)
    return run_job(
        hydra_context=application.context,
        task_function=application.task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def compose(application: Application, overrides: Sequence[str], number: int) -> DictConfig:
    """The config of a job, with its number."""
    composed = application.context.config_loader.load_sweep_config(application.config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = number
        composed.hydra.job.num = number
    return composed


def load(answer: bytes) -> JobReturn:
    returned: JobReturn = cloudpickle.loads(answer)
    return returned


def folder_of(composed: DictConfig) -> Path:
    """Where Hydra puts a job of a multirun."""
    return Path(
        str(OmegaConf.select(composed, "hydra.sweep.dir")), str(OmegaConf.select(composed, "hydra.sweep.subdir"))
    )


def _builtin() -> set[str]:
    """Resolvers that every process has."""
    return {name for name in BaseContainer._resolvers if name.startswith("oc.")} | {"now", "hydra", "python_version"}
