"""The predictor against the allocator: a grid of trainings of one model, each in a process of its own."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from typing import Any

from benchmarks.acceptance.check import Bench, Findings
from benchmarks.memory.cpu import VARIANTS, Cell, measure, run_config
from sweep.launch import device_leases
from sweep.processes import isolated_call

SHAPES = ((1, 512), (4, 256))  # rows × tokens of a micro-batch
MOST = {"allocated": (0.005, 0.01), "reserved": (0.03, 0.08)}  # relative error: on average, at worst


def grid(bench: Bench, found: Findings) -> None:
    """Predicted memory is the measured memory within the limits of `MOST`."""
    folder = f"{bench.folder}/small"
    machine = isolated_call.call("benchmarks.acceptance.memory:this_machine", env=device_leases.leases("auto")[0].env)
    rows: dict[str, Any] = {}
    shapes = SHAPES if bench.is_gpu else ((2, 32),)
    for variant, checkpointing, shape in itertools.product(VARIANTS, (False, True), shapes):
        cell = Cell("llama", variant, "bf16", checkpointing)
        label = f"{variant}, {shape[0]} × {shape[1]} tokens, checkpointing {'on' if checkpointing else 'off'}"
        predicted = isolated_call.call("benchmarks.acceptance.memory:predicted", cell, folder, shape, machine)
        measured = isolated_call.call(
            "benchmarks.acceptance.memory:measured", cell, folder, shape, bench.device,
            env=device_leases.leases("auto")[0].env,
        )  # fmt: skip
        rows[label] = {
            f"{kind}_{source}_bytes": value
            for kind in MOST
            for source, value in (
                ("predicted", predicted[f"{kind}_bytes"]),
                ("measured", measured.get(f"memory/train_max_{kind}_bytes")),
            )
        }
    for kind, (mean, worst) in MOST.items():
        errors = {
            label: row[f"{kind}_predicted_bytes"] / row[f"{kind}_measured_bytes"] - 1
            for label, row in rows.items()
            if row[f"{kind}_predicted_bytes"] and row[f"{kind}_measured_bytes"]
        }
        if not errors:
            found.expect(not bench.is_gpu, f"{kind} memory is predicted and measured")
            continue
        label = max(errors, key=lambda label: abs(errors[label]))
        average = statistics.mean(map(abs, errors.values()))
        found.figures |= {f"{kind}_mean_error": average, f"{kind}_worst_error": errors[label]}
        found.expect(average <= mean, f"the error of {kind} memory is {mean:.1%} at most on average: {average:.2%}")
        found.expect(abs(errors[label]) <= worst, f"and {worst:.1%} at worst: {errors[label]:+.2%} ({label})")
    found.figures["cells"] = rows


def _config_and_workload(cell: Cell, folder: str, shape: tuple[int, int]) -> tuple[Any, Any]:
    from sweep.memory import workload

    config = run_config(cell, folder)
    train = replace(config.train, micro_batch_size=shape[0], max_length=shape[1], eval_batch_size=1)
    config = replace(config, train=train)
    return config, workload.declared(config, length=shape[1], padded=False)


def predicted(cell: Cell, folder: str, shape: tuple[int, int], machine: Any, report: object = None) -> dict[str, Any]:
    from sweep.memory import predictor

    config, workload = _config_and_workload(cell, folder, shape)
    return predictor.trace_tier(config, workload, machine, config.model.architecture()).as_dict()


def measured(cell: Cell, folder: str, shape: tuple[int, int], device: str, report: object = None) -> dict[str, float]:
    return measure(*_config_and_workload(cell, folder, shape), device=device)


def this_machine(report: object = None) -> Any:
    import torch

    from sweep.memory.prediction import Machine

    if not torch.cuda.is_available():
        return Machine(kind="cpu")
    properties = torch.cuda.get_device_properties(0)
    return Machine(
        kind="cuda",
        capability=(properties.major, properties.minor),
        name=properties.name,
        capacity_bytes=properties.total_memory,
    )
