"""Four variants of a model of Llama-3-8B's shape, trained on micro-batches of several sizes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from benchmarks.acceptance.check import Bench, Findings, Skipped, is_positive
from benchmarks.memory.cpu import VARIANTS, Cell, run_config
from sweep.launch import device_leases
from sweep.processes import isolated_call

STEPS = 6  # the first three are warm-up, and not timed
SHAPES = ((1, 512), (4, 512), (1, 2048))  # rows × tokens of a micro-batch, the smallest first
_NEEDED_BYTES = 40 << 30  # LoRA of 8 billion bf16 weights; full fine-tuning needs more, and may run out of memory


def llama_8b(bench: Bench, found: Findings) -> None:
    """Each variant trains, or runs out of memory; LoRA and QLoRA must train, and QLoRA needs the least."""
    if bench.is_gpu and bench.capacity_bytes < _NEEDED_BYTES:
        raise Skipped(f"8 billion weights need a GPU of {_NEEDED_BYTES >> 30} GiB")
    shapes = SHAPES if bench.is_gpu else ((1, 16), (2, 32))
    peaks = {}
    for variant in VARIANTS:
        rows = isolated_call.call(
            "benchmarks.acceptance.llama:cells", variant, f"{bench.folder}/large", shapes, bench.device,
            log_file=bench.folder / f"{variant}.log", env=device_leases.leases("auto")[0].env,
        )  # fmt: skip
        found.figures[variant] = rows
        trained = [row for row in rows.values() if row.get("outcome") == "ok"]
        if variant != "fft":
            found.expect(bool(trained), f"{variant} trains on some micro-batch")
        for row in trained:
            found.expect(is_positive(row["tokens_per_second"]), f"{variant} has a throughput: {row}")
        if variant == "qlora_r16" and bench.is_gpu:
            found.expect(all(row["paged"] for row in trained), "QLoRA trains with paged AdamW")
        peaks[variant] = min((row["memory/train_max_allocated_bytes"] for row in trained), default=None)
    found.figures |= {f"{variant}_smallest_peak_bytes": peak for variant, peak in peaks.items()}
    if bench.is_gpu and peaks["qlora_r16"] and peaks["lora_r16"]:
        found.expect(peaks["qlora_r16"] < peaks["lora_r16"], "QLoRA needs less memory than LoRA of the same rank")


def cells(
    variant: str, folder: str, shapes: tuple[tuple[int, int], ...], device: str, report: object = None
) -> dict[str, Any]:
    """One variant: loaded, then trained on every shape. A cell that runs out of memory is a row like the others."""
    import gc

    import torch

    from sweep.memory import workload
    from sweep.meters import memory_meter
    from sweep.runtime import precision

    config = run_config(Cell("llama", variant, "bf16", False), folder)
    if variant == "qlora_r16":
        config = replace(config, variant=replace(config.variant, paged_optimizer=True))
    tokens = max(length for _, length in shapes)
    config = replace(config, train=replace(config.train, precision="bf16", max_steps=STEPS, max_length=tokens))
    task = workload.declared(config, length=tokens, padded=False).task
    meter = memory_meter(device)
    started = time.perf_counter()
    with meter.phase("load"), meter.window():
        quantization = config.variant.quantization(precision.dtype_of("bf16"), task.task_type)
        base = config.model.load(task.auto_class(), quantization, device, {})
        model = config.variant.wrap(base, task.task_type, False)
        meter.watch(model)
    rows: dict[str, Any] = {"load": {"seconds": time.perf_counter() - started, **meter.readings}}
    for checkpointing in (False, True):
        for size, length in shapes:
            train = replace(
                config.train, micro_batch_size=size, max_length=length, activation_checkpointing=checkpointing
            )
            label = f"{size} × {length}, checkpointing={checkpointing}"
            rows[label] = _cell(replace(config, train=train), model, length, device)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(variant, label, rows[label], flush=True)
    return rows


def _cell(config: Any, model: Any, length: int, device: str) -> dict[str, Any]:
    from sweep.memory import workload
    from sweep.meters import memory_meter
    from sweep.meters.energy import EnergyMeter
    from sweep.runtime.out_of_memory import is_out_of_memory
    from sweep.training.fit import fit

    found = workload.declared(config, length=length, padded=False)
    meter, energy, row = memory_meter(device), EnergyMeter(), {"outcome": "ok"}
    try:
        with meter.phase("train"), energy:
            meter.watch(model)
            fitted = fit(
                model,
                list(found.rows) * STEPS,
                found.task.collator(found.tokenizer),
                config.train,
                learning_rate=1e-5,
                seed=0,
                optimizer=config.variant.optimizer(device),
                meter=meter,
            )
        row |= {
            "tokens_per_second": fitted.tokens_per_second,
            "loss": fitted.loss,
            "train_seconds": fitted.train_seconds,
        }
    except Exception as error:
        if not (meter.ran_out or is_out_of_memory(error)):
            raise
        row |= {"outcome": "oom", **meter.out_of_memory()}
    optimizer = getattr(meter._optimizer, "optimizer", meter._optimizer)
    paged = getattr(optimizer, "is_paged", False)
    return row | meter.readings | {
        "joules": energy.joules, "energy_source": energy.source, "optimizer": type(optimizer).__name__, "paged": paged,
    }  # fmt: skip
