"""The preparation of runs: once per model, on a leased GPU, and without credentials in the child."""

from __future__ import annotations

import pytest
import torch
from conftest import compose

from sweep import training_run
from sweep.launch import preparation
from sweep.launch.device_leases import Lease
from sweep.memory import Machine
from sweep.processes import isolated_call
from sweep.runtime.gpus import Gpu

SECRET = "planted-secret"


def test_runs_of_one_model_are_prepared_once_on_one_leased_gpu_and_without_credentials(monkeypatch: pytest.MonkeyPatch):
    received: list[dict] = []

    def call(target: str, config: dict, env: dict[str, str], **options: object) -> tuple[dict[str, str], dict, Machine]:
        received.append(config)
        assert env == {"CUDA_VISIBLE_DEVICES": "GPU-aa"}
        return {"steps": str(config["model"]["pretrain_steps"])}, {}, Machine(kind="cpu")

    monkeypatch.setattr(isolated_call, "call", call)
    uri = f"tracking.uri=http://me:{SECRET}@127.0.0.1:9"
    first, longer = (compose(uri, f"train.max_steps={steps}", "model.pretrain_steps=98765") for steps in (6, 7))
    other = compose(uri, "model.pretrain_steps=98766")
    lease = Lease(gpus=(Gpu(id="GPU-aa", number="3"), Gpu(id="GPU-bb", number="4")))
    facts = [preparation.prepare(config, lease).facts for config in (first, longer, other)]
    assert facts == [{"steps": "98765"}, {"steps": "98765"}, {"steps": "98766"}]
    assert len(received) == 2
    assert SECRET in str(first)
    assert SECRET not in str(received)


def test_runs_are_predicted_for_the_memory_that_cuda_gives(monkeypatch: pytest.MonkeyPatch):
    """Less than NVML reports: 81,153 of 81,920 MiB of an A100."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80_000 * 2**20, 81_153 * 2**20))
    expected = Machine(kind="cuda", capability=(8, 0), name="NVIDIA A100-SXM4-80GB", capacity_bytes=81_153 * 2**20)
    assert training_run._machine("cuda") == expected
    assert training_run._machine("cpu") == Machine(kind="cpu")
