"""A job of any Hydra application in a process of its own, with everything that Hydra promises a job.

cloudpickle carries the application's function and its registered resolvers to the process, since they may be defined in
a script. The fork server imports nothing of training, and loads the application once. The parent composes the configs.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from sweep.core.reporter import Reporter


class Application(NamedTuple):
    """What the jobs of a sweep have in common."""

    task_function: TaskFunction
    context: HydraContext
    config: DictConfig


@contextmanager
def packed(application: Application) -> Iterator[str]:
    """A temporary file for `unpack`: the application with Hydra's state and the registered resolvers."""
    # OmegaConf has no public list of the registered resolvers.
    resolvers = {name: resolver for name, resolver in BaseContainer._resolvers.items() if not _is_builtin(name)}
    content = cloudpickle.dumps((sys.path, cloudpickle.dumps((application, Singleton.get_state(), resolvers))))
    with tempfile.NamedTemporaryFile(prefix="paretune-application-") as file:
        file.write(content)
        file.flush()
        yield file.name


@cache
def unpack(file: str) -> tuple[Application, dict[str, object]]:
    """The application and its resolvers, loaded once per process; Hydra's state is restored."""
    sys.path[:], content = cloudpickle.loads(Path(file).read_bytes())
    application, state, resolvers = cloudpickle.loads(content)
    Singleton.set_state(state)
    return application, resolvers


def run(file: str, composed: bytes, with_configs: bool, reporter: Reporter) -> bytes:
    """Run one job as Hydra's own launchers do: its folder, its logging, its environment, its callbacks. `file` is the
    application from `packed`, `composed` the config from `dump`. Returns the job's pickled JobReturn."""
    application, resolvers = unpack(file)
    setup_globals()
    BaseContainer._resolvers.update(resolvers)
    returned = run_job(
        hydra_context=application.context,
        task_function=application.task_function,
        config=cloudpickle.loads(composed),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if not with_configs:
        returned.cfg = returned.hydra_cfg = None
    return cloudpickle.dumps(returned)


def numbered(composed: DictConfig, number: int) -> DictConfig:
    """The config of a job, with its number."""
    with open_dict(composed):
        composed.hydra.job.id = number
        composed.hydra.job.num = number
    return composed


def dump(composed: DictConfig) -> bytes:
    """A config for `run`. cloudpickle is slower, and is used only where the config holds classes of the script."""
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        pickled = pickle.dumps(composed)
        if b"__main__" not in pickled:
            return pickled
    return cloudpickle.dumps(composed)


def load(answer: bytes) -> JobReturn:
    returned: JobReturn = cloudpickle.loads(answer)
    return returned


def folder_of(composed: DictConfig) -> Path:
    """The folder that Hydra uses for a job of a multirun."""
    return Path(
        str(OmegaConf.select(composed, "hydra.sweep.dir")), str(OmegaConf.select(composed, "hydra.sweep.subdir"))
    )


def _is_builtin(resolver: str) -> bool:
    """Whether every process has this resolver."""
    return resolver.startswith("oc.") or resolver in ("now", "hydra", "python_version")
