"""An application of Hydra's in processes of its own: what travels there, and what is loaded once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

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
    assert list(resolvers) == ["mine"]
    assert resolvers["mine"].__code__.co_code == registered.__code__.co_code


def test_a_script_s_own_classes_are_the_same_in_its_jobs(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["hydra/sweeper=paretune", "hydra/launcher=paretune", "hydra.sweeper.direction=maximize"]
    command = [sys.executable, "script.py", "-m", *options, "hydra.sweep.dir=out", "kind=A,B"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "best_value: 2.0" in (tmp_path / "out" / "optimization_results.yaml").read_text()
