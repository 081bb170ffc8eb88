"""A whole run in this process: what its record states of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import compose
from cuda_allocator import GIB, Allocator, install

from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.meters import measurements
from sweep.meters.cuda import CudaMemory
from sweep.training_run import run_training
from sweep.variants.full import Full

pytestmark = pytest.mark.slow


def run(folder: Path, *overrides: str) -> Record:
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED)
    return run_training(RunRequest(config=compose(*overrides), record=record, folder=str(folder)), silent)


def test_evaluation_does_not_carry_the_optimizer_s_state(toy: list[str], tmp_path: Path):
    """AdamW's two moments would make evaluation need three times the weights."""
    short = ["variant=fft", "train.max_steps=2", "train.eval_batch_size=1", "task.data.n_validation=2"]
    measured = run(tmp_path, *toy, *short).measurements
    weights = 4 * measured["total_params"]
    assert measured["memory/train_max_allocated_bytes"] > 4 * weights
    assert measured["memory/eval_max_allocated_bytes"] < 1.3 * weights


@pytest.mark.parametrize(("held", "size"), [("fp32", 4), ("checkpoint", 2)])
def test_a_16_bit_checkpoint_trains_in_fp32_unless_the_config_keeps_its_type(
    held: str, size: int, toy: list[str], tmp_path: Path
):
    short = ["variant=fft", "model.dtype=bf16", f"train.trained_weights={held}", "task.data.n_validation=2"]
    measured = run(tmp_path, *toy, *short).measurements
    assert measured["weights/trained_bytes"] == size * measured["total_params"]
    assert ("train/changed_weights_fraction" in measured) == (held == "checkpoint")


def test_out_of_memory_while_a_base_is_quantised_is_oom(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """transformers catches every error of that step, and raises a RuntimeError without a cause. The allocator's
    observer has seen the failed allocation."""
    from bitsandbytes.nn import Params4bit

    allocator = install(monkeypatch, Allocator())
    monkeypatch.setattr(measurements, "memory_meter", lambda *options: CudaMemory())
    monkeypatch.setattr(Params4bit, "to", lambda *args, **kwargs: allocator.allocate(100 * GIB))
    record = run(tmp_path, *toy, "variant=qlora_r8")
    assert record.outcome is Outcome.OOM
    assert "automatic conversion of the weights" in record.reason
    assert record.measurements["memory/oom_requested_bytes"] == 100 * GIB


def test_a_run_that_others_leave_no_memory_for_is_failed_and_worth_a_retry(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    allocator = install(monkeypatch, Allocator(others=60 * GIB))
    monkeypatch.setattr(measurements, "memory_meter", lambda *options: CudaMemory())
    monkeypatch.setattr(Full, "wrap", lambda *args: allocator.allocate(30 * GIB))
    record = run(tmp_path, *toy, "variant=fft")
    assert record.outcome is Outcome.FAILED
    assert not record.outcome.final
    assert record.reason.startswith("memory ran out while other processes held 59.9 GiB on the GPU")


def test_a_gpu_that_is_too_full_for_a_context_is_an_outcome(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The meter is the first to use the GPU."""

    def full(*args: object) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    install(monkeypatch, Allocator())
    for function in ("get_device_capability", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, function, full)
    monkeypatch.setattr(measurements, "memory_meter", lambda *options: CudaMemory())
    assert run(tmp_path, *toy, "variant=fft").outcome is Outcome.OOM
