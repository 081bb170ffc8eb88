"""An application of Hydra's in processes of its own: what travels there, and what is loaded once."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from sweep.core.errors import described
from sweep.hydra_compat import isolated_job
from sweep.processes import child_process

pytestmark = pytest.mark.usefixtures("hydra_by_default")

SCRIPT = """
from dataclasses import dataclass
from enum import Enum

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

class Kind(Enum):
    A = 1
    B = 2

@dataclass
class Conf:
    kind: Kind = Kind.A

ConfigStore.instance().store(name="conf", node=Conf)

@hydra.main(version_base="1.3", config_path=None, config_name="conf")
def job(cfg):
    assert OmegaConf.get_type(cfg) is Conf
    assert isinstance(OmegaConf.to_object(cfg), Conf)
    return 1.0 if cfg.kind is Kind.A else 2.0

job()
"""


def application_in(folder: Path, function) -> isolated_job.Application:
    (folder / "config.yaml").write_text("x: 1\n")
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", [], RunMode.MULTIRUN)
    return isolated_job.Application(function, HydraContext(loader, Callbacks()), config)


def double(config: DictConfig) -> int:
    return 2 * config.x


def test_an_application_is_unpacked_once_with_its_resolvers(tmp_path: Path):
    OmegaConf.register_new_resolver("mine", lambda x: f"{x}!", replace=True)
    registered = BaseContainer._resolvers["mine"]
    try:
        with isolated_job.packed(application_in(tmp_path, double)) as file:
            application, resolvers = isolated_job.unpack(file)
            assert child_process.function_of("sweep.hydra_compat.isolated_job:unpack")(file)[0] is application
    finally:
        OmegaConf.clear_resolver("mine")
    assert application.task_function(application.config) == 2
    assert "mine" in resolvers
    assert "oc.env" not in resolvers
    assert resolvers["mine"].__code__.co_code == registered.__code__.co_code


class TwoArguments(Exception):
    """pickle passes one argument only."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Locked(Exception):
    def __init__(self, message: str):
        super().__init__(message)
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Unbuildable:
    def __reduce__(self):
        return int, ("x",)


def failing(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:  # noqa: BLE001  any class
        return raised


def sent(value: object) -> JobReturn | isolated_job.JobFailed:
    """What the parent gets of a job's exception, or of its value."""
    returned = JobReturn(status=JobStatus.FAILED if isinstance(value, Exception) else JobStatus.COMPLETED)
    returned.return_value = value
    return isolated_job.load(isolated_job.answer(returned))


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (TwoArguments("first", 2), "TwoArguments: first"),
        (urllib.error.HTTPError("http://x", 503, "busy", None, None), "HTTPError: HTTP Error 503: busy"),
        (Locked("held"), "Locked: held"),
    ],
)
def test_an_exception_that_cannot_be_pickled_arrives_as_text(error: Exception, summary: str):
    failed = sent(failing(error))
    assert isinstance(failed, isolated_job.JobFailed)
    assert str(failed) == summary
    assert "raise error" in isolated_job.traceback_of(failed)


def test_an_exception_that_can_be_pickled_arrives_with_its_traceback():
    returned = sent(failing(ZeroDivisionError("by zero")))
    error = isolated_job.exception_of(returned)
    assert (type(error), str(error)) == (ZeroDivisionError, "by zero")
    text = isolated_job.traceback_of(error)
    assert "raise error" in text
    assert "exception_of" not in text
    assert described(isolated_job.exception_of(sent(failing(Mute())))) == "Mute: it has no text"


def test_a_value_that_cannot_be_pickled_is_a_failure_of_its_job():
    assert sent(3.5).return_value == 3.5
    for value in (Unbuildable(), threading.Lock()):
        failed = sent(value)
        assert str(failed) == f"the job returned a {type(value).__name__} that cannot be sent"
        assert isolated_job.traceback_of(failed)


def test_a_script_s_own_classes_are_the_same_in_its_jobs(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["hydra/sweeper=paretune", "hydra/launcher=paretune", "hydra.sweeper.direction=maximize"]
    command = [sys.executable, "script.py", "-m", *options, "hydra.sweep.dir=out", "kind=A,B"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "best_value: 2.0" in (tmp_path / "out" / "optimization_results.yaml").read_text()
