"""A run outside the pool: a single run, or one that joblib or submitit starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import fake_nvml
import pytest
from conftest import ROOT
from fake_nvml import gtx_1660, h100, uuid_of
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from sweep.core.record import Outcome, Record
from sweep.launch import device_locks
from sweep.launch.device_leases import Lease
from sweep.launch.hydra_task import TrainingTask
from sweep.processes import isolated_call


class Task(TrainingTask):
    """It notes the lease, and whether its GPUs are locked meanwhile."""

    def prepare(self, composed: object, lease: Lease) -> SimpleNamespace:
        self.lease, self.is_locked = lease, device_locks.acquire(lease) is None
        return SimpleNamespace(config=SimpleNamespace(study=SimpleNamespace(trial=0)))

    def run(self, prepared: object) -> Record:
        return Record(variant="v", setting="v", seed=0, outcome=Outcome.OK)


@pytest.mark.parametrize(
    ("overrides", "leased"),
    [
        ([], (uuid_of(1),)),
        (["hydra.launcher.devices=[3]"], (uuid_of(3),)),
        (["train.devices_per_run=2"], (uuid_of(1), uuid_of(2))),
        (["hydra/launcher=basic"], (uuid_of(1),)),
    ],
)
def test_it_takes_a_free_gpu_of_the_launcher_s_devices(
    overrides: list[str], leased: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_nvml.install(monkeypatch, gtx_1660(), *(h100() for _ in range(3)))
    monkeypatch.setattr(device_locks, "FOLDER", tmp_path)
    monkeypatch.setattr(isolated_call.ForkServer, "start", lambda server, *arguments: None)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=overrides, return_hydra_config=True)
    with_mode = composed.copy()
    with_mode.hydra.mode = "MULTIRUN"
    HydraConfig.instance().set_config(with_mode)
    task = Task()
    task(composed)
    assert tuple(gpu.id for gpu in task.lease.gpus) == leased
    assert task.is_locked
    assert device_locks.acquire(task.lease) is not None
