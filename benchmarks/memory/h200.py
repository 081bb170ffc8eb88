"""The predictor against predictions that its first version made for an H200, without measurements.

    python -m benchmarks.memory.h200 PREDICTIONS.json

The file lists settings with the bytes predicted then. Of its 35 settings, the 33 of a Llama of 1.2 billion parameters
are predicted again, with bf16 weights or under bf16 autocast. Neither side is measured. Today's figures are lower by
one tensor of logits in each row: the step of the first version kept the model's output until its end, and the Trainer
does not.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory.cpu import Cell, run_config
from benchmarks.results import save
from sweep.processes import isolated_call

VARIANTS = {"fft": "fft", "lora8": "lora_r8", "lora16": "lora_r16", "qlora16": "qlora_r16"}
PRECISIONS = {"bf16": "bf16", "amp": "autocast"}
OPTIMIZERS = {"adamw-foreach": "adamw_torch", "adamw-fused": "adamw_torch_fused"}


def predict_all(specs: list[dict[str, Any]], folder: str, report: object = None) -> list[dict[str, Any]]:
    from transformers import LlamaConfig

    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine

    found = []
    for spec in specs:
        LlamaConfig(**spec["config_over"], dtype="bfloat16").save_pretrained(folder)
        config = run_config(Cell("llama", VARIANTS[spec["variant"]], PRECISIONS[spec["precision"]], spec["gc"]), folder)
        train = replace(
            config.train,
            micro_batch_size=spec["batch"],
            max_length=spec["seq"],
            eval_batch_size=1,
            optimizer=OPTIMIZERS[spec["optimizer"]],
        )
        config = replace(config, train=train)
        shape = workload.declared(config, length=spec["seq"], padded=False)
        machine = Machine(kind="cuda", capability=(9, 0))
        found.append(predictor.trace_tier(config, shape, machine, config.model.architecture()).as_dict())
    return found


def main() -> None:
    before = [one for one in json.loads(Path(sys.argv[1]).read_text()) if one["spec"]["arch"] == "llama-s"]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in before:
            spec = one["spec"]
            [found] = isolated_call.call("benchmarks.memory.h200:predict_all", [spec], folder)
            checkpointed = " checkpointed" if spec["gc"] else ""
            fused = " fused" if spec["optimizer"] == "adamw-fused" else ""
            label = f"{spec['variant']} {spec['precision']}{checkpointed}{fused} {spec['batch']}×{spec['seq']}"
            row = {f"{kind}_bytes": found[f"{kind}_bytes"] for kind in ("requested", "allocated", "reserved")}
            row |= {f"{kind}_bytes_then": one[kind] for kind in ("requested", "allocated", "reserved")}
            row |= {"peak_at": found["peak_at"], "peak_at_then": one["at"]}
            row["allocated_difference"] = found["allocated_bytes"] / one["allocated"] - 1
            rows[label] = row
            print(f"{label:40} {100 * row['allocated_difference']:+7.2f}% at {row['peak_at']}", flush=True)
    differences = [abs(row["allocated_difference"]) for row in rows.values()]
    save(
        "memory_h200",
        {
            "settings": len(rows),
            "mean_absolute_difference": statistics.mean(differences),
            "largest_difference": max(differences),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
