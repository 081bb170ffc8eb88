"""The meter of GPU memory on a stand-in for PyTorch's allocator, which counts what the test allocates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cuda_allocator import GIB, Allocator, install

from sweep.core import console
from sweep.core.record import Outcome, Record
from sweep.diagnostics import sanity_checks
from sweep.meters import Meters, memory_meter
from sweep.meters.cuda import CudaMemory
from sweep.meters.measurements import Measurements
from sweep.meters.other_processes import out_of_memory_reason
from sweep.variants.full import Full


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    return install(monkeypatch, Allocator())


def test_each_phase_has_its_own_peaks_of_allocated_and_of_reserved_memory(allocator: Allocator):
    """Evaluation inside training and the phases before leave their cache behind; no later phase reports it."""
    meter = CudaMemory()
    with meter.phase("load"):
        allocator.allocate(10)
        allocator.allocate(5)
        allocator.free(5)
    with meter.phase("train"):
        with meter.step(1):
            allocator.allocate(90)
            allocator.free(90)
        with meter.aside():
            allocator.allocate(500)
            allocator.free(500)
        with meter.step(2):
            allocator.allocate(95)
            allocator.free(95)
    with meter.phase("eval"):
        allocator.allocate(20)
        allocator.free(20)
    peaks = {phase: (15, 105, 30)[number] for number, phase in enumerate(("load", "train", "eval"))}
    for phase, peak in peaks.items():
        for kind in ("allocated", "reserved", "requested"):
            assert meter.readings[f"memory/{phase}_max_{kind}_bytes"] == peak, (phase, kind)
    assert [moment.peak_bytes for moment in meter.timeline] == [100, 105]
    assert meter.readings["memory/eval_end_allocated_bytes"] == 10


def test_memory_at_the_failed_allocation_is_kept(allocator: Allocator):
    meter = CudaMemory()
    with pytest.raises(torch.OutOfMemoryError), meter.phase("train"):  # noqa: PT012
        allocator.allocate(50 * GIB)
        allocator.allocate(40 * GIB)
    assert meter.ran_out
    allocator.free(50 * GIB)  # as the stack unwinds
    found = meter.out_of_memory()
    assert found["memory/oom_allocated_bytes"] == found["memory/oom_live_activations_and_temporaries_bytes"] == 50 * GIB
    assert found["memory/oom_requested_bytes"] == 40 * GIB
    assert "memory/oom_others_bytes" not in found
    assert out_of_memory_reason(found) is None


def test_a_phase_after_a_failed_allocation_that_was_handled_starts_anew(allocator: Allocator):
    meter = CudaMemory()
    with meter.phase("train"), pytest.raises(torch.OutOfMemoryError):
        allocator.allocate(100 * GIB)
    with meter.phase("eval"):
        pass
    assert not meter.ran_out


def test_an_allocator_without_an_observer_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """backend:cudaMallocAsync. It does not count requests: a figure that it does not measure is absent."""
    allocator = install(monkeypatch, Allocator(observed=False))
    meter = memory_meter("cuda", Meters(oom_snapshot=True), tmp_path)
    with meter.phase("train"):
        allocator.allocate(10)
    assert meter.readings["memory/train_max_allocated_bytes"] == 10
    assert "memory/train_max_requested_bytes" not in meter.readings
    assert "does not yet support attachOutOfMemoryObserver" in meter.facts["memory_at_oom"]
    assert allocator.history == {}
    with pytest.raises(torch.OutOfMemoryError), meter.phase("eval"):
        allocator.allocate(100 * GIB)
    assert meter.out_of_memory()["memory/oom_live_activations_and_temporaries_bytes"] == 10


def test_paged_optimizer_state_is_a_figure_of_its_own(allocator: Allocator, tmp_path: Path):
    """As bitsandbytes keeps it: a tensor on the host, with a mark. Small tensors are not paged."""
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(200_000)), torch.nn.Parameter(torch.ones(10))])
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name in ("exp_avg", "exp_avg_sq"):
        optimizer.state[model[0]][name].is_paged = True
    measured = Measurements("cuda", Meters(), tmp_path)
    with measured.memory.phase("train"):
        allocator.allocate(5 * GIB)
        measured.memory.watch(model, optimizer)
    record = measured.close(Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED), Outcome.OK, "")
    assert record.measurements["memory/train_paged_bytes"] == 2 * 4 * 200_000
    assert record.measurements["max_memory_allocated"] == 5 * GIB
    assert record.measurements["peak_memory_bytes"] == 5 * GIB + 2 * 4 * 200_000
    measured.memory.watch(model)
    assert measured.memory.paged_bytes() == 2 * 4 * 200_000  # it stays, and is not that of another process
    assert "(1.5 MiB paged)" in console.line(replace(record, measurements={**record.measurements, "score": 1.0}))


def test_a_snapshot_names_python_s_stacks_only(allocator: Allocator, tmp_path: Path):
    with memory_meter("cuda", Meters(oom_snapshot=True), tmp_path).phase("load"):
        pass
    assert allocator.history["stacks"] == "python"


@pytest.mark.parametrize(
    ("held", "requested", "cause"),
    [(60, 20, True), (60, 79, False), (0.5, 79, False)],
    ids=["fits without them", "fits nowhere", "an idle desktop"],
)
def test_others_are_the_cause_if_the_request_would_fit_without_them(
    monkeypatch: pytest.MonkeyPatch, held: float, requested: int, cause: bool
):
    allocator = install(monkeypatch, Allocator(others=int(held * GIB)))
    meter = CudaMemory()
    with pytest.raises(torch.OutOfMemoryError), meter.phase("train"):  # noqa: PT012
        allocator.allocate(15 * GIB)
        allocator.allocate(requested * GIB)
    reason = out_of_memory_reason(meter.out_of_memory())
    assert (reason is not None) == cause
    if reason is not None:
        assert reason.startswith("memory ran out while other processes held 59.9 GiB on the GPU; without them, the "
                                 "request of 20.0 GiB would fit")  # fmt: skip


def test_others_that_come_during_a_run_are_among_its_warnings(allocator: Allocator):
    meter = CudaMemory()
    with meter.phase("train"):
        allocator.allocate(10 * GIB)
        allocator.others = 20 * GIB
    assert meter.readings["memory/train_others_bytes"] == pytest.approx(20 * GIB, rel=0.01)
    [line] = sanity_checks.warnings(meter.readings, True, 1e-3, Full(name="fft", learning_rate=1e-3))
    assert line.startswith("other processes held 19.9 GiB on the GPU")
