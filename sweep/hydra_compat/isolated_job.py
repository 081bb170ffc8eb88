"""A job of any Hydra application in a process of its own, with everything that Hydra promises a job.

cloudpickle carries the application's function and its registered resolvers to the process, since they may be defined in
a script. The fork server imports nothing of training, and loads the application once. The parent composes the configs.
"""

from __future__ import annotations

import io
import pickle
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from sweep.core.errors import described
from sweep.core.reporter import Reporter


class Application(NamedTuple):
    """What the jobs of a sweep have in common."""

    task_function: TaskFunction
    context: HydraContext
    config: DictConfig


class Answer(NamedTuple):
    """What a job sends: its pickled JobReturn, and for a parent that cannot read that, what it is as text, and the
    traceback of its exception."""

    returned: bytes
    summary: str
    traceback: str


class JobFailed(Exception):
    """A job without a result that this process can read: why, and the traceback of the job as a note."""

    def __init__(self, summary: str, traceback_text: str = ""):
        super().__init__(summary)
        if traceback_text:
            self.add_note(traceback_text)


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


def run(file: str, composed: bytes, with_configs: bool, reporter: Reporter) -> Answer:
    """Run one job as Hydra's own launchers do: its folder, its logging, its environment, its callbacks. `file` is the
    application from `packed`, `composed` the config from `dump`."""
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
    return answer(returned)


def answer(returned: JobReturn) -> Answer:
    """What a job sends to the process that started it."""
    error = exception_of(returned)
    if error is None:
        summary, frames = f"the job returned a {type(returned.return_value).__name__} that cannot be sent", ""
    else:
        summary, frames = described(error), traceback_of(error)
    try:
        return Answer(cloudpickle.dumps(returned), summary, frames)
    except Exception as unsendable:  # noqa: BLE001  pickling calls methods of the value
        return Answer(b"", summary, frames or described(unsendable))


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


def load(sent: Answer) -> JobReturn | JobFailed:
    """A job's JobReturn; an exception has its traceback as a note. JobFailed if the value or the exception cannot be
    built here: many exceptions of libraries cannot, since their class has arguments that pickle does not pass."""
    try:
        returned: JobReturn = cloudpickle.loads(sent.returned)
        error = exception_of(returned)
        if error is not None:
            error.add_note(sent.traceback)
    except Exception as unreadable:  # noqa: BLE001  unpickling calls code of the value
        return JobFailed(sent.summary, sent.traceback or described(unreadable))
    return returned


def exception_of(returned: JobReturn) -> Exception | None:
    """The exception that a job raised, with its own frames, or None if the job is complete. Hydra's property raises it,
    and prints all overrides to stderr, which may contain credentials: the printed line is discarded."""
    if returned.status is JobStatus.COMPLETED:
        return None
    try:
        with redirect_stderr(io.StringIO()):
            _ = returned.return_value
    except Exception as error:  # noqa: BLE001  the job's own exception, of any class
        here = error.__traceback__  # this function and the property, then the frames of the job
        return error.with_traceback(here and here.tb_next and here.tb_next.tb_next)
    return None


def traceback_of(error: Exception) -> str:
    """The traceback of a job's exception; of one that came from another process, the note that `load` has added."""
    if error.__traceback__ is not None:
        return "".join(traceback.format_exception(error)).rstrip()
    return "".join(getattr(error, "__notes__", [])[-1:])


def folder_of(composed: DictConfig) -> Path:
    """The folder that Hydra uses for a job of a multirun."""
    return Path(
        str(OmegaConf.select(composed, "hydra.sweep.dir")), str(OmegaConf.select(composed, "hydra.sweep.subdir"))
    )


def _is_builtin(resolver: str) -> bool:
    """Whether every process has this resolver."""
    return resolver.startswith("oc.") or resolver in ("now", "hydra", "python_version")
