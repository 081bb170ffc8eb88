"""What the fork server does once, so that no job has to."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from sweep.hydra_compat import isolated_job

pytestmark = pytest.mark.usefixtures("hydra_by_default")
CONFIG = """
defaults: [_self_]
hydra:
  job:
    chdir: true
    env_set: {REHEARSED: 'yes'}
x: 1
y: ${mine:${x}}
"""

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
    (folder / "config.yaml").write_text(CONFIG)
    with initialize_config_dir(str(folder), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = [f"hydra.sweep.dir={folder}/out"]
        config = loader.load_configuration("config", overrides, RunMode.MULTIRUN)
    return isolated_job.Application(function, HydraContext(loader, Callbacks()), config)


def test_a_rehearsal_runs_nothing_of_the_application_and_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    steps: list[str] = []

    class Told(Callbacks):
        def on_job_start(self, config: DictConfig, **kwargs) -> None:
            steps.append("callback")

    application = application_in(tmp_path, lambda config: steps.append("function"))
    application = application._replace(context=HydraContext(application.context.config_loader, Told()))
    rehearsed = []
    nothing = isolated_job._nothing
    monkeypatch.setattr(
        isolated_job, "_nothing", lambda config: rehearsed.append((os.environ["REHEARSED"], config.y, nothing(config)))
    )
    composed_before = HydraConfig.instance().cfg
    before = OmegaConf.to_yaml(application.config), os.getcwd(), dict(os.environ), list(logging.root.handlers)
    try:
        isolated_job._rehearse(isolated_job._Unpacked(application, {"mine": resolver()}))
        assert rehearsed == [("yes", "1!", None)]  # it is a job as others are
        assert steps == []
        assert before == (
            OmegaConf.to_yaml(application.config),
            os.getcwd(),
            dict(os.environ),
            list(logging.root.handlers),
        )
        assert HydraConfig.instance().cfg is composed_before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "tmp"]
        assert list((tmp_path / "tmp").iterdir()) == []
    finally:
        OmegaConf.clear_resolver("mine")


def test_a_script_s_own_classes_are_the_same_in_its_jobs(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["hydra/sweeper=paretune", "hydra/launcher=paretune", "hydra.sweeper.direction=maximize"]
    command = [sys.executable, "script.py", "-m", *options, "hydra.sweep.dir=out", "kind=A,B"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "best_value: 2.0" in (tmp_path / "out" / "optimization_results.yaml").read_text()


def resolver():
    """A resolver as OmegaConf keeps it."""
    OmegaConf.register_new_resolver("mine", lambda x: f"{x}!", replace=True)
    from omegaconf.basecontainer import BaseContainer

    return BaseContainer._resolvers["mine"]
