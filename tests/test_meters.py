"""Meters read known quantities as exactly themselves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from sweep.meters.cpu import LiveStorages, LiveTensorMemory, model_tensors
from sweep.meters.throughput import Throughput

MIB = 2**20


def test_a_known_allocation_reads_as_exactly_itself():
    with LiveStorages() as storages:
        kept = torch.empty(MIB, dtype=torch.float32)
        gone = torch.empty(3 * MIB, dtype=torch.int8)
        assert storages.live_bytes == 7 * MIB
        del gone
        assert storages.live_bytes == 4 * MIB
    assert storages.peak_bytes == 7 * MIB
    del kept
    assert storages.live_bytes == 0


def test_a_storage_counts_once_however_many_views_it_has():
    with LiveStorages() as storages:
        base = torch.zeros(1024)
        views = [base[10:], base.view(32, 32), base.t(), base.detach()]
        assert storages.live_bytes == 4096
        del base, views
        assert storages.live_bytes == 0


def test_what_was_made_before_counts_once_it_is_used():
    before = torch.zeros(1024)
    with LiveStorages() as storages:
        after = before + 1
        assert storages.live_bytes == 8192
    del before, after


def test_a_leak_is_seen():
    leak = []
    with LiveStorages() as storages:
        for _ in range(5):
            leak.append(torch.zeros(256))
            torch.zeros(256)
    assert storages.live_bytes == 5 * 1024


def test_weights_mapped_from_a_file_are_counted(tiny_checkpoint: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    storages = LiveStorages()
    for tensor in model_tensors(model):
        storages.add(tensor)
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    buffers = sum(buffer.numel() * 4 for buffer in model.buffers())
    assert storages.live_bytes == weights + buffers


def test_a_training_step_agrees_with_the_profiler_s_count(tiny_checkpoint: Path):
    """The profiler records each allocation of the CPU allocator: its running sum peaks where ours does."""

    def step(model: torch.nn.Module) -> None:
        loss = model(input_ids=torch.arange(4, 20).repeat(8, 1), labels=torch.arange(4, 20).repeat(8, 1)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    step(model)  # the optimizer's state is there from here on
    meter = LiveStorages()
    static = [*model_tensors(model), *(v for s in optimizer.state.values() for v in s.values())]
    for tensor in static:
        meter.add(tensor)
    start = meter.live_bytes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step(model)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    with meter:
        step(model)
    assert meter.peak_bytes - start == pytest.approx(peak, rel=0.01)


def test_phases_are_kept_apart():
    meter = LiveTensorMemory()
    with meter.phase("load"), meter.window():
        large = torch.zeros(MIB)
    del large
    with meter.phase("train"):
        with meter.window(wanted=False):
            torch.zeros(8 * MIB)
        with meter.window():
            torch.zeros(1024)
    assert meter.readings["memory/load_max_allocated_bytes"] == 4 * MIB
    assert meter.readings["memory/train_max_allocated_bytes"] == 4096
    assert meter.readings["memory/train_metered_windows"] == 1
    assert meter.readings["memory/train_host_rss_bytes"] > MIB


def test_a_phase_that_fails_keeps_what_it_measured():
    meter = LiveTensorMemory()
    with pytest.raises(MemoryError), meter.phase("train"), meter.window():  # noqa: PT012
        torch.zeros(1024)
        raise MemoryError
    assert meter.readings["memory/train_max_allocated_bytes"] == 4096


def test_throughput_leaves_the_first_steps_out():
    meter = Throughput(skipped_steps=2)
    for step in range(4):
        meter.step_begins()
        meter.add_tokens(1000 if step < 2 else 10)
        time.sleep(0.05 if step < 2 else 0.01)
        meter.step_ended()
    assert (meter.timed_steps, meter.timed_tokens) == (2, 20)
    assert 20 / 0.08 < meter.tokens_per_second <= 20 / 0.02
