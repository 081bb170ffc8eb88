"""Predicted against measured memory on the CPU, for 72 small trainings.

    python -m benchmarks.memory.cpu [architecture …]

{Llama, GPT-2, DistilBERT for classification} × {FFT, LoRA r=8, r=16, QLoRA r=16} × {fp32, bf16 weights, bf16 autocast}
× {checkpointing off, on}: each is loaded, wrapped and trained for three steps under the meter of real
runs, and predicted from its config. Takes some minutes on two cores.
Figures to reach: mean error of at most 0.1%, worst at most 2%.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import save
from sweep.processes import isolated_call

TOKENS = (2, 128)  # a micro-batch
VARIANTS: dict[str, dict[str, Any]] = {
    "fft": {},
    "lora_r8": {"r": 8, "alpha": 16},
    "lora_r16": {"r": 16, "alpha": 32},
    "qlora_r16": {"r": 16, "alpha": 32, "paged_optimizer": False},
}
OTHERS: dict[str, dict[str, Any]] = {"lora8bit_r16": {"r": 16, "alpha": 32}}  # not among the cells
PRECISIONS = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "fp32"), "autocast": ("fp32", "bf16")}  # weights, computation
ARCHITECTURES = ("llama", "gpt2", "distilbert")


class Cell(NamedTuple):
    architecture: str
    variant: str
    precision: str
    checkpointing: bool


def cells(architectures: tuple[str, ...] = ARCHITECTURES) -> Iterator[Cell]:
    yield from itertools.starmap(Cell, itertools.product(architectures, VARIANTS, PRECISIONS, (False, True)))


def architecture(name: str, **smaller: Any) -> Any:
    """Shapes of some ten million parameters, with grouped queries, tied and untied embeddings, and dropout."""
    import transformers

    if name == "llama":
        sizes = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4}
        sizes |= {"intermediate_size": 704, "vocab_size": 8192, "tie_word_embeddings": False}
        return transformers.LlamaConfig(**(sizes | smaller))
    if name == "gpt2":
        sizes = {"n_embd": 256, "n_layer": 6, "n_head": 8, "vocab_size": 8192}
        return transformers.GPT2Config(**(sizes | {"bos_token_id": 0, "eos_token_id": 0} | smaller))
    sizes = {"dim": 256, "n_layers": 6, "n_heads": 8, "hidden_dim": 1024, "vocab_size": 8192, "num_labels": 2}
    return transformers.DistilBertConfig(**(sizes | smaller))


def run_config(cell: Cell, folder: str) -> Any:
    """The cell as a run of the program, its checkpoint in `folder`."""
    from sweep.config.schema import RunConfig, Study
    from sweep.meters import Meters
    from sweep.models.pretrained import Pretrained
    from sweep.tracking.options import Tracking
    from sweep.training.options import Train
    from sweep.variants.full import Full
    from sweep.variants.lora import LoRA, LoRA8bit, QLoRA

    weights, computation = PRECISIONS[cell.precision]
    family = {"fft": Full, "qlora_r16": QLoRA, "lora8bit_r16": LoRA8bit}.get(cell.variant, LoRA)
    return RunConfig(
        model=Pretrained(path=folder, dtype=weights),
        task=_task(cell.architecture),
        variant=family(name=cell.variant, learning_rate=1e-4, **(VARIANTS | OTHERS)[cell.variant]),
        train=Train(
            max_steps=3,
            micro_batch_size=TOKENS[0],
            max_length=TOKENS[1],
            optimizer="adamw_torch_fused",
            precision=computation,
            trained_weights="checkpoint",
            activation_checkpointing=cell.checkpointing,
        ),
        tracking=Tracking(uri="", artifacts="", experiment="none"),
        study=Study(),
        meters=Meters(),
        seed=0,
    )


def _task(name: str) -> Any:
    from sweep.datasets.scan import ScanAroundRight
    from sweep.metrics.accuracy import Accuracy
    from sweep.metrics.exact_match import ExactMatch
    from sweep.tasks.classification import Classification
    from sweep.tasks.generation import Generation

    data = ScanAroundRight(n_train=64, n_validation=20)  # never read: the lengths are given
    if name == "distilbert":
        return Classification(data=data, metrics={"accuracy": Accuracy()}, score="accuracy")
    return Generation(data=data, metrics={"exact_match": ExactMatch()}, score="exact_match", max_new_tokens=4)


def measure(config: Any, workload: Any, device: str = "cpu") -> dict[str, float]:
    """The run's load and train phases under its meter, with real tensors."""
    from sweep.meters import memory_meter
    from sweep.runtime import precision
    from sweep.training.fit import fit

    meter = memory_meter(device)
    compute = precision.dtype_of(config.train.precision)
    task = workload.task
    with meter.phase("load"), meter.window():
        quantization = config.variant.quantization(compute, task.task_type)
        base = config.model.load(task.auto_class(), quantization, device, task.model_arguments(workload.tokenizer))
        model = config.variant.wrap(base, task.task_type, config.train.activation_checkpointing)
        precision.cast_weights(model, config.train.precision, config.train.trained_weights)
        meter.watch(model)
    rows = list(workload.rows) * config.train.max_steps
    with meter.phase("train"):
        fit(
            model,
            rows,
            task.collator(workload.tokenizer),
            config.train,
            learning_rate=1e-4,
            seed=0,
            optimizer=config.variant.optimizer(device),
            is_causal=task.is_causal,
            meter=meter,
        )
    return meter.readings


def compare(cell: Cell, folder: str, report: object = None) -> dict[str, Any]:
    """Predict, then measure. In this process."""
    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine

    config = run_config(cell, folder)
    found = workload.declared(config, length=TOKENS[1], padded=False)
    predicted = predictor.trace_tier(config, found, Machine(kind="cpu"), config.model.architecture())
    measured = measure(config, found)
    return {
        "predicted_bytes": predicted.allocated_bytes,
        "measured_bytes": measured["memory/train_max_allocated_bytes"],
        "predicted_load_bytes": predicted.load_bytes,
        "measured_load_bytes": measured["memory/load_max_allocated_bytes"],
        "peak_at": predicted.peak_at,
    }


def compare_all(cells: list[Cell], folder: str, report: object = None) -> list[dict[str, Any]]:
    return [compare(cell, folder) for cell in cells]


def save_checkpoint(name: str, folder: str, report: object = None, **smaller: Any) -> None:
    """Random weights, as `save_pretrained` writes them."""
    import transformers

    config = architecture(name, **smaller)
    auto = "SequenceClassification" if name == "distilbert" else "CausalLM"
    getattr(transformers, f"AutoModelFor{auto}").from_config(config).save_pretrained(folder)


def main() -> None:
    chosen = tuple(sys.argv[1:]) or ARCHITECTURES
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            isolated_call.call("benchmarks.memory.cpu:save_checkpoint", name, f"{scratch}/{name}")
        log_file = Path(scratch, "log.txt")
        for (name, variant), group in itertools.groupby(cells(chosen), key=lambda cell: cell[:2]):
            alike = list(group)
            found = isolated_call.call(
                "benchmarks.memory.cpu:compare_all", alike, f"{scratch}/{name}", log_file=log_file
            )
            for cell, row in zip(alike, found, strict=True):
                row["error"] = row["predicted_bytes"] / row["measured_bytes"] - 1
                label = f"{name} {variant} {cell.precision} checkpointing={cell.checkpointing}"
                rows[label] = row
                mib = row["measured_bytes"] / 2**20
                print(f"{label:56} {mib:9.1f} MiB {100 * row['error']:+8.4f}% at {row['peak_at']}", flush=True)
    errors = [abs(row["error"]) for row in rows.values()]
    save(
        "memory_cpu",
        {
            "cells": len(errors),
            "mean_absolute_error": statistics.mean(errors),
            "median_absolute_error": statistics.median(errors),
            "worst_absolute_error": max(errors),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
