"""Meters measure known quantities exactly."""

from __future__ import annotations

import csv
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from sweep.diagnostics import sanity_checks
from sweep.meters import live_memory, memory_timeline
from sweep.meters.cpu import LiveStorages, LiveTensorMemory, model_tensors
from sweep.meters.memory_timeline import StepMemory
from sweep.meters.throughput import Throughput
from sweep.variants import Variant
from sweep.variants.full import Full
from sweep.variants.lora import LoRA, QLoRA

MIB = 2**20


@pytest.fixture(scope="module")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.3 million parameters: large enough that 0.1% is more than one small tensor."""
    folder = tmp_path_factory.mktemp("small_llama")
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_a_known_allocation_is_measured_exactly():
    with LiveStorages() as storages:
        kept = torch.empty(MIB, dtype=torch.float32)
        gone = torch.empty(3 * MIB, dtype=torch.int8)
        assert storages.live_bytes == 7 * MIB
        del gone
        assert storages.live_bytes == 4 * MIB
    assert storages.peak_bytes == 7 * MIB
    del kept
    assert storages.live_bytes == 0


def test_a_storage_counts_once_with_any_number_of_views():
    with LiveStorages() as storages:
        base = torch.zeros(1024)
        views = [base[10:], base.view(32, 32), base.t(), base.detach()]
        assert storages.live_bytes == 4096
        del base, views
        assert storages.live_bytes == 0


def test_an_older_tensor_counts_when_it_is_used():
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


VARIANTS = {
    "fft": Full(name="fft", learning_rate=1e-3),
    "lora": LoRA(name="lora", learning_rate=1e-3, r=8, alpha=16),
    "qlora": QLoRA(name="qlora", learning_rate=1e-3, r=8, alpha=16),
}


def load_and_step(folder: Path, variant: Variant, checkpointing: bool) -> Iterator[torch.nn.Module]:
    """Yields the model at the end of loading, after a first step, and after the second."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": "cpu"}, quantization_config=variant.quantization(torch.float32)
    )
    model.config.use_cache = False
    model = variant.wrap(model, "CAUSAL_LM", activation_checkpointing=False)  # it is turned on below for all variants
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    yield model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=True)
    ids = torch.arange(4 * 48).view(4, 48) % 1000
    for _ in range(2):
        model(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids)).loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        gc.collect()
        yield model


def allocator_count(part: Callable[[], object], start: int) -> tuple[int, int, object]:
    """(bytes at the end, peak, result): the running sum of what PyTorch's CPU allocator reports to the profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = part()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    sums = list(itertools.accumulate((e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), initial=start))
    return sums[-1], max(sums), result


def mapped_bytes(model: torch.nn.Module) -> int:
    """Bytes of the weights with addresses in a mapped file, by the kernel's list."""
    lines = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "safetensors" in line]
    regions = [tuple(int(end, 16) for end in line.split("-")) for line in lines]
    storages = {s.data_ptr(): s.nbytes() for s in (p.untyped_storage() for p in model.parameters())}
    return sum(size for at, size in storages.items() if any(low <= at < high for low, high in regions))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_meter_agrees_with_the_allocator(name: str, checkpointing: bool, small_llama: Path):
    """Within 0.1%: the profiler's memory events from the first byte of loading on, with the mapped weights added."""
    gc.collect()  # garbage of earlier tests must not be freed during the count
    steps = load_and_step(small_llama, VARIANTS[name], checkpointing)
    meter = LiveStorages()
    with meter:
        static, _, model = allocator_count(lambda: next(steps), 0)
        for tensor in model_tensors(model):
            meter.add(tensor)
        after_first, _, _ = allocator_count(lambda: next(steps), static)
        meter.reset_peak()
        _, peak, _ = allocator_count(lambda: next(steps), after_first)
    mapped = mapped_bytes(model)
    assert mapped > 0
    # The allocator reports a mapped file once, whole, its header and the weights that were quantised since included.
    truth = peak - (small_llama / "model.safetensors").stat().st_size + mapped
    assert meter.peak_bytes == pytest.approx(truth, rel=1e-3)


def test_each_phase_has_its_own_figures():
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


def test_a_failed_phase_keeps_its_measurements():
    meter = LiveTensorMemory()
    with pytest.raises(MemoryError), meter.phase("train"), meter.window():  # noqa: PT012
        torch.zeros(1024)
        raise MemoryError
    assert meter.readings["memory/train_max_allocated_bytes"] == 4096


def test_throughput_excludes_the_first_steps():
    meter = Throughput(skipped_steps=2)
    for step in range(4):
        meter.step_begins()
        meter.add_tokens(1000 if step < 2 else 10)
        time.sleep(0.05 if step < 2 else 0.01)
        meter.step_ended()
    assert (meter.timed_steps, meter.timed_tokens) == (2, 20)
    assert 20 / 0.08 < meter.tokens_per_second <= 20 / 0.02


def test_a_step_that_the_meter_slowed_down_does_not_count():
    meter = Throughput(skipped_steps=0)
    for slowed in (False, True, False):
        meter.step_begins(counts=not slowed)
        meter.add_tokens(1000 if slowed else 10)
        meter.step_ended()
    assert (meter.timed_steps, meter.timed_tokens) == (2, 20)


def test_a_leak_is_seen_in_the_timeline_from_one_step_to_the_next():
    meter, kept = LiveTensorMemory(), []
    with meter.phase("train"):
        for step in range(1, 6):
            with meter.step(step, wanted=step != 4):
                torch.zeros(MIB)
                kept.append(torch.zeros(1024))
    meter.close_timeline(5)
    assert meter.timeline[0] == StepMemory(1, 0, 4096, 4096 + 4 * MIB - 4096)
    assert [moment.allocated_bytes - moment.begin_bytes for moment in meter.timeline] == [4096] * 4
    assert meter.readings["memory/train_growth_bytes_per_step"] == 4096
    assert meter.readings["memory/train_max_allocated_bytes"] == 4 * MIB + 3 * 4096
    assert meter.facts["memory_steps"] == "1-3, 5 of 5"


def test_a_cache_that_grows_during_evaluation_is_reported():
    meter, cache = LiveTensorMemory(), []
    with meter.phase("eval"):
        for number in range(6):
            with meter.batch(number):
                torch.zeros(MIB)
                cache.append(torch.zeros(MIB // 4))
    assert meter.readings["memory/eval_growth_bytes_per_batch"] == MIB
    assert "grows by 1.0 MiB with each batch of eval" in next(
        sanity_checks.warnings(meter.readings, True, 1e-3, Full(name="fft", learning_rate=1e-3))
    )
    assert not list(
        sanity_checks.warnings(
            {**meter.readings, "memory/eval_growth_bytes_per_batch": 80},
            True,
            1e-3,
            Full(name="fft", learning_rate=1e-3),
        )
    )


def test_a_phase_does_not_count_the_garbage_of_the_previous_phase():
    meter = LiveTensorMemory()
    with meter.phase("train"), meter.window():
        cycle: list[object] = [torch.zeros(MIB)]
        cycle.append(cycle)
        del cycle
    with meter.phase("eval"), meter.window():
        torch.zeros(1024)
    assert meter.readings["memory/train_max_allocated_bytes"] == 4 * MIB
    assert meter.readings["memory/eval_max_allocated_bytes"] == 4096


def test_steps_that_keep_no_tensor_do_not_grow():
    """The batch is alive when its step ends, and a longer batch has more bytes."""
    steps = [
        StepMemory(1, 0, 910, 999),
        StepMemory(2, 900, 910, 999),
        StepMemory(3, 900, 950, 999),
        StepMemory(4, 900, 990, 999),
    ]
    assert memory_timeline.growth_bytes_per_step(steps) == 0
    assert memory_timeline.growth_bytes_per_step(steps[:2]) is None


def test_the_timeline_is_a_table(tmp_path: Path):
    memory_timeline.write([StepMemory(1, 2, 3, 4), StepMemory(2, 3, 4, 5, 6)], tmp_path / "timeline.csv")
    with (tmp_path / "timeline.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "step": "1", "begin_bytes": "2", "allocated_bytes": "3", "peak_bytes": "4", "reserved_bytes": ""
    }  # fmt: skip
    assert rows[1]["reserved_bytes"] == "6"


@pytest.mark.parametrize("name", VARIANTS)
def test_live_memory_is_reported_by_category(name: str, small_llama: Path):
    """Compared with closed forms: 4 bytes per weight, r·(in + out) for LoRA, 0.516 bytes for a 4-bit weight."""
    steps = load_and_step(small_llama, VARIANTS[name], checkpointing=False)
    model = next(steps)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    model(input_ids=torch.zeros(1, 8, dtype=torch.long), labels=torch.zeros(1, 8, dtype=torch.long)).loss.backward()
    optimizer.step()
    found = live_memory.by_category(model, optimizer, live_bytes=10**9)
    linear = 3 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)
    adapters = 3 * 8 * (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 512))
    other = 2 * 1000 * 256 + 7 * 256
    frozen = {"fft": 0, "lora": linear + other, "qlora": other}[name]
    trainable = linear + other if name == "fft" else adapters
    tensors = sum(p.requires_grad for p in model.parameters())
    assert found.get("frozen_weights", 0) == 4 * frozen
    assert found["trainable_weights"] == found["gradients"] == 4 * trainable
    assert found["optimizer_state"] == 8 * trainable + 4 * tensors  # two moments, and a step counter for each tensor
    assert found.get("quantized_weights", 0) == (linear / 2 if name == "qlora" else 0)
    if name == "qlora":
        # one byte for 64 weights, four for 256 of these; a code of 16 and one of 256 floats and a mean for each layer
        per_layer = 64 + 1024 + 4
        assert found["quantization_state"] == pytest.approx(
            linear / 64 + linear / 64 / 256 * 4 + 21 * per_layer, rel=0.02
        )
    assert sum(found.values()) == 10**9
