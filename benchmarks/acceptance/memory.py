"""The predictor against the allocator: a grid of trainings of one model, each in a process of its own."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from benchmarks.acceptance.check import Bench, Findings
from benchmarks.memory.cpu import VARIANTS, Cell
from sweep.launch import device_leases
from sweep.memory import Machine
from sweep.processes import isolated_call

SHAPES = ((1, 512), (4, 256))  # rows × tokens of a micro-batch
MOST = {"allocated": (0.005, 0.01), "reserved": (0.03, 0.08)}  # relative error: on average, at worst


def grid(bench: Bench, found: Findings) -> None:
    """Predicted memory is the measured memory within the limits of `MOST`."""
    folder = f"{bench.folder}/small"
    env = device_leases.leases("auto")[0].env
    machine = isolated_call.call("benchmarks.memory.gpu:this_gpu", env=env) if bench.is_gpu else Machine(kind="cpu")
    rows: dict[str, Any] = {}
    shapes = SHAPES if bench.is_gpu else ((2, 32),)
    for variant, checkpointing, shape in itertools.product(VARIANTS, (False, True), shapes):
        cell = Cell("llama", variant, "bf16", checkpointing)
        label = f"{variant}, {shape[0]} × {shape[1]} tokens, checkpointing {'on' if checkpointing else 'off'}"
        predicted = isolated_call.call("benchmarks.memory.gpu:predicted", cell, folder, shape, machine)
        measured = isolated_call.call(
            "benchmarks.memory.gpu:measured", cell, folder, shape, bench.device,
            env=env,
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
