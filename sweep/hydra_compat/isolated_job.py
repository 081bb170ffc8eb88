"""A job of any Hydra application in a process of its own, with all that Hydra promises a job.

The application's function, and the resolvers that it has registered, travel by cloudpickle, since they may live in a
script. The fork server imports this module and nothing of training, and takes the application in as it starts: its jobs
are forked with its modules imported. It does a job in vain, too, so that the jobs find all that Hydra imports and fills
as it begins one. Their configs are composed by the parent, who has the presets merged.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cloudpickle
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from sweep.core.reporter import Reporter

PACKED = "PARETUNE_APPLICATION"  # the file that the server finds its application in


class Application(NamedTuple):
    """What the jobs of a sweep share."""

    task_function: TaskFunction
    context: HydraContext
    config: DictConfig


class _Unpacked(NamedTuple):
    """An application as its jobs find it."""

    application: Application
    resolvers: dict[str, object]


@contextmanager
def packed(application: Application) -> Iterator[str]:
    """A file that `run` takes, for a while: the application with Hydra's state and the registered resolvers."""
    resolvers = {k: v for k, v in BaseContainer._resolvers.items() if k not in _builtin()}
    content = cloudpickle.dumps((sys.path, cloudpickle.dumps((application, Singleton.get_state(), resolvers))))
    with tempfile.NamedTemporaryFile(prefix="paretune-application-") as file:
        file.write(content)
        file.flush()
        yield file.name


def _unpack(file: str) -> _Unpacked:
    sys.path[:], content = cloudpickle.loads(Path(file).read_bytes())
    application, state, resolvers = cloudpickle.loads(content)
    Singleton.set_state(state)
    return _Unpacked(application, resolvers)


def run(file: str, composed: bytes, with_configs: bool, report: Reporter) -> bytes:
    """Run one job as Hydra's own launchers do: its folder, its logging, its environment, its callbacks. `composed` is
    its config, pickled.

    Returns its JobReturn, pickled: what the application returned, or raised, and if wished its configs.
    """
    application, resolvers = _taken_in.get(file) or _unpack(file)
    setup_globals()
    BaseContainer._resolvers.update(resolvers)
    returned = _run_job(application, cloudpickle.loads(composed))
    if not with_configs:
        returned.cfg = returned.hydra_cfg = None
    return cloudpickle.dumps(returned)


def _run_job(application: Application, composed: DictConfig, configure_logging: bool = True) -> JobReturn:
    return run_job(
        hydra_context=application.context,
        task_function=application.task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        configure_logging=configure_logging,
    )


def numbered(composed: DictConfig, number: int) -> DictConfig:
    """The config of a job, with its number."""
    with open_dict(composed):
        composed.hydra.job.id = number
        composed.hydra.job.num = number
    return composed


def dump(composed: DictConfig) -> bytes:
    """A config for `run`: by cloudpickle where it holds classes of the script itself, which is slower."""
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        pickled = pickle.dumps(composed)
        if b"__main__" not in pickled:
            return pickled
    return cloudpickle.dumps(composed)


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


_taken_in: dict[str, _Unpacked] = {}


def _take_in(file: str) -> None:
    """In the fork server: what cannot be unpacked here fails in the jobs, where it is told. Where only the rehearsal
    fails, they begin more slowly."""
    with suppress(Exception, SystemExit):
        _taken_in[file] = unpacked = _unpack(file)
        _rehearse(unpacked)


def _rehearse(unpacked: _Unpacked) -> None:
    """Do a job of nothing, in a folder of its own and without callbacks."""
    importlib.import_module("hydra._internal.logging_config")  # what Hydra imports as it begins a job
    setup_globals()
    BaseContainer._resolvers.update(unpacked.resolvers)
    context = HydraContext(unpacked.application.context.config_loader, Callbacks())
    composed = cloudpickle.loads(cloudpickle.dumps(unpacked.application.config))
    OmegaConf.set_readonly(composed.hydra, False)
    with tempfile.TemporaryDirectory(prefix="paretune-rehearsal-") as folder:
        numbered(composed, 0).hydra.sweep.dir = folder
        cloudpickle.dumps(_run_job(Application(_nothing, context, composed), composed, configure_logging=False))


def _nothing(config: DictConfig) -> None:
    OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)


if PACKED in os.environ:
    _take_in(os.environ.pop(PACKED))
