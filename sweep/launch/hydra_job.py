"""A job of any Hydra application in a process of its own, with all that Hydra promises a job.

The application's function, and the resolvers that it has registered, travel by cloudpickle, since they may live in a
script. The fork server imports this module and nothing of training, and takes the application in as it starts: its jobs
are forked with its modules imported and its config composed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cloudpickle
from hydra.core.config_loader import ConfigLoader  # noqa: F401  imported once by the server
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from sweep.composition import Compositions
from sweep.report import Report

PACKED = "PARETUNE_APPLICATION"  # the file that the server finds its application in


class Application(NamedTuple):
    """What the jobs of a sweep share."""

    task_function: TaskFunction
    context: HydraContext
    config: DictConfig


class _Unpacked(NamedTuple):
    """An application as its jobs find it."""

    application: Application
    compositions: Compositions
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
    return _Unpacked(application, Compositions(application.context.config_loader, application.config), resolvers)


def run(file: str, overrides: Sequence[str], number: int, report: Report) -> bytes:
    """Run one job as Hydra's own launchers do: its folder, its logging, its environment, its callbacks.

    Returns its JobReturn, pickled: what the application returned, or raised.
    """
    application, compositions, resolvers = _taken_in.get(file) or _unpack(file)
    setup_globals()
    BaseContainer._resolvers.update(resolvers)
    composed = numbered(compositions.of(overrides), number)
    returned = run_job(
        hydra_context=application.context,
        task_function=application.task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return cloudpickle.dumps(returned)


def numbered(composed: DictConfig, number: int) -> DictConfig:
    """The config of a job, with its number."""
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


_taken_in: dict[str, _Unpacked] = {}


def _take_in(file: str) -> None:
    """In the fork server: what cannot be unpacked or composed here fails in the jobs, where it is told. A job's config
    is composed and written once in vain, so that Hydra's parser and YAML's tables are there."""
    with suppress(Exception, SystemExit):
        unpacked = _unpack(file)
        OmegaConf.to_yaml(unpacked.compositions.of(["+rehearsal=0.5"]))
        _taken_in[file] = unpacked


if PACKED in os.environ:
    _take_in(os.environ.pop(PACKED))
