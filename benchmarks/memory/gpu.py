"""Predicted against measured memory on this machine's GPU: Llamas of 1 and of 8 billion parameters, random weights.

    python -m benchmarks.memory.gpu [1b] [8b]

Four variants × {bf16 weights, bf16 autocast} × {checkpointing off, on} × three shapes of a micro-batch. Each is trained
for three steps in a process of its own under the meter of real runs, and predicted in another for this GPU's compute
capability. A cell that is predicted not to fit is not trained. The 8B checkpoint takes 16 GB of disk while this runs.
Figures to reach: allocated within 0.5% on average and 1% at worst, reserved 3% and 8%.

This needs a CUDA GPU, and has not been run on one yet: results/ has no figures of it.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory.cpu import VARIANTS, Cell, measure, run_config, save_checkpoint
from benchmarks.memory.speed import LLAMA_3_8B
from benchmarks.results import save
from sweep.launch.device_leases import leases
from sweep.processes import isolated_call

MODELS: dict[str, dict[str, Any]] = {
    "1b": {
        **LLAMA_3_8B,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
    },
    "8b": LLAMA_3_8B,
}
SHAPES = ((1, 512), (4, 512), (2, 2048))


def config_and_facts(cell: Cell, folder: str, shape: tuple[int, int]) -> tuple[Any, Any]:
    from sweep.memory import workload

    config = run_config(cell, folder)
    train = replace(config.train, micro_batch_size=shape[0], max_length=shape[1], eval_batch_size=1)
    config = replace(config, train=train)
    return config, workload.declared(config, length=shape[1], padded=False)


def predicted(cell: Cell, folder: str, shape: tuple[int, int], machine: Any, report: object = None) -> dict[str, Any]:
    from sweep.memory import predictor

    config, found = config_and_facts(cell, folder, shape)
    return predictor.trace_tier(config, found, machine, config.model.architecture()).as_dict()


def measured(
    cell: Cell, folder: str, shape: tuple[int, int], device: str = "cuda", report: object = None
) -> dict[str, float]:
    return measure(*config_and_facts(cell, folder, shape), device=device)


def this_gpu(report: object = None) -> Any:
    """Raises RuntimeError where there is none."""
    import torch

    from sweep.memory.prediction import Machine

    properties = torch.cuda.get_device_properties(0)
    return Machine(
        kind="cuda",
        capability=(properties.major, properties.minor),
        name=properties.name,
        capacity_bytes=torch.cuda.mem_get_info()[1],
    )


def row_of(
    cell: Cell, folder: str, shape: tuple[int, int], machine: Any, log_file: Path, env: dict[str, str]
) -> dict[str, Any]:
    try:
        predicted_row = isolated_call.call(
            "benchmarks.memory.gpu:predicted", cell, folder, shape, machine, log_file=log_file
        )
    except isolated_call.ChildFailed as error:
        return {"not_predicted": str(error)}
    row = {f"predicted_{kind}_bytes": predicted_row[f"{kind}_bytes"] for kind in ("allocated", "reserved", "requested")}
    row |= {"peak_at": predicted_row["peak_at"], "attention": predicted_row["assumptions"]["attention_kernel"]}
    if predicted_row["allocated_bytes"] > 0.97 * machine.capacity_bytes:
        return {**row, "not_tried": "predicted not to fit"}
    try:
        seen = isolated_call.call(
            "benchmarks.memory.gpu:measured", cell, folder, shape, "cuda", log_file=log_file, env=env
        )
    except isolated_call.ChildFailed as error:
        return {**row, "not_measured": str(error)}
    for kind in ("allocated", "reserved", "requested"):
        row[f"measured_{kind}_bytes"] = seen[f"memory/train_max_{kind}_bytes"]
        row[f"{kind}_error"] = row[f"predicted_{kind}_bytes"] / row[f"measured_{kind}_bytes"] - 1
    return row


def main() -> None:
    env = leases()[0].env  # of one GPU: the Trainer would split the batches over all that it sees
    machine = isolated_call.call("benchmarks.memory.gpu:this_gpu", env=env)
    rows: dict[str, Any] = {}
    for name in sys.argv[1:] or list(MODELS):
        with tempfile.TemporaryDirectory() as folder:
            isolated_call.call("benchmarks.memory.gpu:save_model", name, folder, env=env)
            for variant, precision, checkpointing, shape in itertools.product(
                VARIANTS, ("bf16", "autocast"), (False, True), SHAPES
            ):
                cell = Cell("llama", variant, precision, checkpointing)
                label = f"{name} {variant} {precision} checkpointing={checkpointing} {shape[0]}×{shape[1]}"
                rows[label] = row_of(cell, folder, shape, machine, Path(folder, "log.txt"), env)
                print(label, rows[label], flush=True)
    save("memory_gpu", {"gpu": machine.name, **_summary(rows), "rows": rows})


def _summary(rows: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"cells": len(rows)}
    for kind in ("allocated", "reserved", "requested"):
        errors = [abs(row[f"{kind}_error"]) for row in rows.values() if f"{kind}_error" in row]
        if errors:
            found |= {f"{kind}_mean_absolute_error": statistics.mean(errors), f"{kind}_worst": max(errors)}
    return found


def save_model(name: str, folder: str, report: object = None) -> None:
    save_checkpoint("llama", folder, **MODELS[name])


if __name__ == "__main__":
    main()
