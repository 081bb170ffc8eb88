"""One run over two devices: two processes joined by gloo give the Record of one process."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import fake_nvml
import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from conftest import compose
from safetensors.torch import load_file
from transformers import Trainer

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import Reporter, silent
from sweep.core.run_request import RunRequest
from sweep.launch import multi_gpu_run
from sweep.launch.device_leases import Lease, leases
from sweep.launch.multi_gpu_run import SUM, joined
from sweep.processes import isolated_call
from sweep.runtime import sharding
from sweep.training.batch_order import training_order
from sweep.training_run import prepare, run_training

pytestmark = pytest.mark.slow


def run_on_cpus(request: RunRequest, report: Reporter) -> Record:
    """`multi_gpu_run.run` with FSDP on CPUs. PyTorch shards over gloo as over NCCL, but accelerate (1.15) supports only
    data parallelism on CPUs, and offers no public way to change that: this writes its state."""
    set_up = sharding.set_up

    def set_up_on_cpus(trainer: Trainer) -> None:
        state = trainer.accelerator.state
        assert state.distributed_type == DistributedType.MULTI_CPU
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True
        set_up(trainer)

    sharding.set_up = set_up_on_cpus  # in this call's process, and in the ranks that it forks
    return multi_gpu_run.run(request, report)


def job(folder: Path, toy: list[str], *overrides: str) -> RunRequest:
    folder.mkdir()
    config = compose(*toy, "task.score=token_accuracy", "train.max_steps=6", *overrides)
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.KILLED)
    return RunRequest(config=config, record=record, folder=str(folder))


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "parallel"), [("lora_r8", "ddp"), ("fft", "fsdp"), ("qlora_r8", "fsdp")], ids=["ddp", "fft", "qlora"]
)
def test_two_ranks_equal_one_process_with_twice_the_accumulation(
    variant: str, parallel: str, tmp_path: Path, toy: list[str]
):
    """The same micro-batches in the same steps: the same losses and weights, up to the order of summation, also with
    an evaluation during training. A sharded model needs half the bytes on each rank."""
    seen: list[isolated_call.Event] = []
    given = [f"variant={variant}", f"train.parallelism={parallel}", "train.gradient_accumulation_steps=1"]
    two = isolated_call.call(
        "test_multi_gpu_run:run_on_cpus",
        job(tmp_path / "two", toy, *given, "train.devices_per_run=2", "train.eval_steps=4"),
        log_file=tmp_path / "log",
        on_event=seen.append,
    )
    one = isolated_call.call(
        "sweep.training_run:run_training",
        job(tmp_path / "one", toy, f"variant={variant}", "train.gradient_accumulation_steps=2"),
    )
    assert two.outcome is Outcome.OK, (two.reason, (tmp_path / "log").read_text()[-2000:])
    for key in ("train/final_loss", "train/tokens", "score", "trainable_params"):
        assert two.measurements[key] == pytest.approx(one.measurements[key], rel=1e-6), key
    weights = [load_file(next((tmp_path / name / "checkpoint").glob("*.safetensors"))) for name in ("two", "one")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)
    assert two.facts["ranks"] == "2"
    largest, total = (two.measurements[k] for k in ("max_memory_allocated", f"{SUM}train_max_allocated_bytes"))
    assert largest < total <= 2 * largest
    names = [event.name for event in seen if event.name != "progress"]
    assert names == [*["metrics"] * 4, "should_prune", *["metrics"] * 2]  # the main rank's, once each
    ratio = two.measurements["memory/train_end_allocated_bytes"] / one.measurements["memory/train_end_allocated_bytes"]
    # Scales of 4-bit weights stay whole on every rank.
    assert ratio == pytest.approx(0.5 if parallel == "fsdp" else 1.0, abs=0.04)


@pytest.mark.parametrize("variant", ["fft", "ln_tuning"])
def test_ranks_that_share_a_16_bit_model_train_its_weights_in_fp32(variant: str, tmp_path: Path, toy: list[str]):
    """All weights, or some while the others keep 16 bits."""
    given = [f"variant={variant}", "model.dtype=bf16", "train.precision=bf16", "train.max_steps=2"]
    ended = isolated_call.call(
        "test_multi_gpu_run:run_on_cpus",
        job(tmp_path / "run", toy, *given, "train.devices_per_run=2", "train.parallelism=fsdp"),
        log_file=tmp_path / "log",
    )
    assert ended.outcome is Outcome.OK, (ended.reason, (tmp_path / "log").read_text()[-2000:])
    assert ended.measurements["weights/trained_bytes"] == 4 * ended.measurements["trainable_params"]
    assert "train/changed_weights_fraction" not in ended.measurements


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.devices_per_run=1"], r"splits a model over several devices: set train\.devices_per_run"),
        (["variant=lora8bit_r16"], "is not for variant lora8bit_r16: .* use a qlora variant, or train.parallelism=ddp"),
        (["variant=prompt_tuning"], "is not for variant prompt_tuning: .* use a lora variant"),
        (["train.optimizer=adamw_8bit"], "does not support sharded parameters"),
    ],
)
def test_a_model_that_cannot_be_sharded_is_refused_before_anything_runs(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        parse(compose("train.devices_per_run=2", "train.parallelism=fsdp", *overrides))


def test_fsdp_without_a_gpu_is_refused(toy: list[str]):
    with pytest.raises(UserError, match="fsdp needs GPUs"):
        prepare(compose(*toy, "train.devices_per_run=2", "train.parallelism=fsdp"), silent)


def test_a_rank_that_is_killed_ends_the_run_with_a_reason(tmp_path: Path, toy: list[str]):
    victims: list[int] = []

    def kill_the_second(event: isolated_call.Event) -> None:
        if event.name == "metrics" and not victims:
            victims.extend(_ranks())
            os.kill(max(victims), signal.SIGKILL)

    record = isolated_call.call(
        "sweep.launch.multi_gpu_run:run",
        job(tmp_path / "two", toy, "train.devices_per_run=2", "train.max_steps=2000"),
        log_file=tmp_path / "log",
        on_event=kill_the_second,
    )
    assert record.outcome in (Outcome.FAILED, Outcome.KILLED)
    assert record.reason
    assert not any(Path(f"/proc/{pid}").exists() for pid in victims)


def test_all_ranks_follow_the_answer_that_the_main_rank_receives(tmp_path: Path, toy: list[str]):
    asked: list[int] = []

    def stop_at_the_second_question(event: isolated_call.Event) -> str | None:
        if event.name != "should_prune":
            return None
        asked.append(event.arguments[0])
        return "others are better" if len(asked) == 2 else None

    record = isolated_call.call(
        "sweep.launch.multi_gpu_run:run",
        job(tmp_path / "two", toy, "train.devices_per_run=2", "train.eval_steps=2"),
        log_file=tmp_path / "log",
        on_event=stop_at_the_second_question,
    )
    assert asked == [2, 4]
    assert (record.outcome, record.reason) == (Outcome.PRUNED, "others are better")
    assert record.facts["ranks"] == "2"


def _ranks() -> list[int]:
    """Processes whose output this one reads: the run's own, and its ranks."""
    opened = [file for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    read = {os.readlink(file) for file in opened if not file.lstat().st_mode & 0o200}  # open for reading only
    found = []
    for process in Path("/proc").iterdir():
        try:
            printed = os.readlink(process / "fd" / "1")
            if process.name.isdecimal() and int(process.name) != os.getpid() and "pipe:" in printed and printed in read:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_lease_has_as_many_devices_as_a_run_trains_on(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, *(fake_nvml.h100() for _ in range(8)), visible="4,5,6,7")
    assert [str(lease) for lease in leases("auto", devices_per_run=2)] == ["GPU 4+5", "GPU 6+7"]
    with pytest.raises(UserError, match="devices_per_run = 5"):
        leases("auto", devices_per_run=5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert leases("auto", slots=3, devices_per_run=2) == [Lease()] * 3  # ranks share the CPU


def test_each_rank_has_a_gpu_of_the_lease_and_cuda_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    """PyTorch may call the driver to count GPUs, as for MIG: no rank that is forked after it could use a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("CUDA was asked"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa,MIG-bb,MIG-cc")
    assert multi_gpu_run._devices(2) == ["MIG-aa", "MIG-bb"]
    assert multi_gpu_run._devices(4) is None
    assert multi_gpu_run._environment(1, 2, "MIG-bb")["CUDA_VISIBLE_DEVICES"] == "MIG-bb"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert multi_gpu_run._devices(2) == ["", ""]


def test_a_run_whose_gpu_was_lost_does_not_train_on_the_cpu(
    tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa")
    request = job(tmp_path / "x", toy)
    request = replace(request, record=request.record.added({}, {"device": "NVIDIA H100"}))
    ended = run_training(request, silent)
    assert ended.outcome is Outcome.FAILED
    assert "was prepared for NVIDIA H100, and its process has" in ended.reason
    assert "train_seconds" not in ended.measurements


def test_a_lease_with_too_few_gpus_is_a_reason(tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa")
    ended = multi_gpu_run.run(job(tmp_path / "x", toy, "train.devices_per_run=2"), silent)
    assert (ended.outcome, ended.reason) == (
        Outcome.FAILED,
        "train.devices_per_run = 2, but this run has the GPUs GPU-aa; lease as many: hydra.launcher.devices_per_run=2",
    )


def record(outcome: Outcome = Outcome.OK, reason: str = "", **measured: float) -> Record:
    return Record(variant="v", setting="v", seed=0, outcome=outcome, reason=reason, measurements=measured)


def test_the_record_has_the_largest_memory_of_a_rank_and_the_sum_over_ranks():
    key = "memory/train_max_allocated_bytes"
    both = joined({
        1: record(**{"max_memory_allocated": 30, key: 30, "energy_joules": 5, "memory/train_metered_windows": 3}),
        0: record(**{"max_memory_allocated": 20, key: 20, "energy_joules": 4, "memory/train_metered_windows": 3,
                     "score": 0.5}),
    })  # fmt: skip
    assert both.measurements == {
        "max_memory_allocated": 30, key: 30, f"{SUM}train_max_allocated_bytes": 50, "energy_joules": 9,
        "memory/train_metered_windows": 3, "score": 0.5,
    }  # fmt: skip


def test_a_rank_without_a_figure_of_energy_leaves_the_run_without():
    silent = replace(record(), facts={"energy_source": "none: NVML does not know GPU-1"})
    both = joined({0: record(energy_joules=4), 1: silent})
    assert "energy_joules" not in both.measurements
    assert both.facts["energy_source"] == "none of rank 1: none: NVML does not know GPU-1"


def test_the_outcome_of_the_cause_is_the_outcome_of_the_run():
    lost = record(Outcome.FAILED, "RuntimeError: connection closed by peer")
    assert joined({0: lost, 1: record(Outcome.OOM, "out of memory")}).outcome is Outcome.OOM
    first = record(Outcome.FAILED, "the first to fail")
    assert joined({1: first, 0: lost}).reason == "the first to fail"


def test_the_batch_counts_all_devices_and_the_longest_comes_early(toy: list[str]):
    train = parse(compose(*toy, "train.devices_per_run=2", "train.gradient_accumulation_steps=3")).train
    assert train.batch_size == 4 * 3 * 2
    lengths = list(range(1, 97))
    order = training_order(lengths, train, seed=0)
    assert len(order) == train.max_steps * train.batch_size
    second = order[train.batch_size : 2 * train.batch_size]
    assert max(order, key=lambda i: lengths[i]) in second
    assert len(training_order(lengths, replace(train, devices_per_run=1), seed=0)) == len(order) // 2
