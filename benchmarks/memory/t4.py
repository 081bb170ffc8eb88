"""Predictions against 61 published measurements on a Tesla T4: LoRA and QLoRA of models of 0.1 to 7.6 billion weights.

    pip download fitcheck-llm==0.3.1 --no-deps --no-binary :all: && tar xzf fitcheck_llm-0.3.1.tar.gz
    python -m benchmarks.memory.t4 fitcheck_llm-0.3.1/data/measurements [holdout]

The archive (MIT) holds `max_memory_allocated` and `max_memory_reserved` of single steps with torch 2.10 to 2.14: fp16
weights without autocast, activation checkpointing, foreach AdamW without clipping, eager attention or PyTorch's
memory-efficient kernel with keys and values expanded. The step kept the model's output; so does this script.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.memory.cpu import Cell, run_config
from benchmarks.memory.l40s import keeping
from benchmarks.results import save
from sweep.processes import isolated_call

MIB = 2**20


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The measured rows, without those that the archive's authors repeated or excluded."""
    manifest = json.loads((folder / "manifest.json").read_text())["rows"]
    files = {name: json.loads((folder / name).read_text())["runs"] for name in {row["file"] for row in manifest}}
    return [
        {**files[row["file"]][row["index"]], "role": row["role"], "identity": row["identity"]}
        for row in manifest
        if row["role"] in ("calibration", "holdout")
    ]


def architecture(row: dict[str, Any]) -> Any:
    import transformers

    sizes = row["model_config"]
    family = transformers.Qwen2Config if "Qwen" in row["model_id"] else transformers.LlamaConfig
    return family(
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["num_layers"],
        num_attention_heads=sizes["num_attention_heads"],
        num_key_value_heads=sizes["num_kv_heads"],
        head_dim=sizes["head_dim"],
        intermediate_size=sizes["intermediate_size"],
        vocab_size=sizes["vocab_size"],
        tie_word_embeddings=sizes["tie_word_embeddings"],
        max_position_embeddings=8192,
        dtype="float16",
    )


def predict(rows: list[dict[str, Any]], report: object = None) -> list[dict[str, Any]]:
    return [_predict(row) for row in rows]


def _predict(row: dict[str, Any]) -> dict[str, Any]:
    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine
    from sweep.memory.simulation import cuda_kernels

    run = row["identity"]
    built = architecture(row)
    with tempfile.TemporaryDirectory() as folder:
        built.save_pretrained(folder)
        name = "qlora_r16" if run["quantization"] == "nf4" else "lora_r16"
        config = run_config(Cell("llama", name, "bf16", run["grad_checkpoint"]), folder)
        values = {**vars(config.variant), "r": run["lora_rank"], "target_modules": run["lora_targets"]}
        if name == "qlora_r16":
            values["double_quantization"] = run["double_quant"]
        attention = "eager" if run["kernel"] == "eager" else "sdpa"
        config = replace(
            config,
            model=replace(config.model, dtype="fp16", attention=attention),
            variant=_in_fp16(keeping(type(config.variant), during_next=False))(**values),
            train=replace(
                config.train,
                micro_batch_size=run["batch_size"],
                max_length=run["seq_len"],
                max_grad_norm=0.0,
                eval_batch_size=1,
            ),
        )
        found = workload.declared(config, length=run["seq_len"], padded=False)
        with mock.patch.object(cuda_kernels, "attention_kernel", return_value="efficient"):
            answer = predictor.trace_tier(config, found, Machine(kind="cuda", capability=(7, 5)), built)
    return {
        "allocated_bytes": answer.allocated_bytes,
        "reserved_bytes": answer.reserved_bytes,
        "peak_at": answer.peak_at,
    }


def _in_fp16(family: type) -> type:
    class InFp16(family):
        """Computes 4-bit products in fp16, and casts nothing else."""

        def quantization(self, compute_dtype: Any, task_type: str = "CAUSAL_LM") -> Any:
            import torch

            return super().quantization(torch.float16, task_type)

    return InFp16


def main() -> None:
    roles = sys.argv[2:] or ["holdout", "calibration"]
    rows = [row for role in roles for row in rows_of(Path(sys.argv[1])) if row["role"] == role]
    figures: dict[str, Any] = {}
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        (answer,) = isolated_call.call("benchmarks.memory.t4:predict", [row])
        run = row["identity"]
        method = "QLoRA" if run["quantization"] == "nf4" else "LoRA"
        label = (
            f"{row['model_id'].split('/')[-1]} {method} r={run['lora_rank']} {run['kernel']} "
            f"{run['batch_size']}×{run['seq_len']}"
        )
        table[label] = {
            "role": row["role"],
            "measured_allocated_bytes": int(row["measured"]["peak_allocated_mib"] * MIB),
            "measured_reserved_bytes": int(row["measured"]["peak_reserved_mib"] * MIB),
            **{f"predicted_{key}": value for key, value in answer.items()},
            "allocated_error": answer["allocated_bytes"] / (row["measured"]["peak_allocated_mib"] * MIB) - 1,
            "reserved_error": answer["reserved_bytes"] / (row["measured"]["peak_reserved_mib"] * MIB) - 1,
        }
        print(
            f"{label:64} {100 * table[label]['allocated_error']:+.3f}%  {100 * table[label]['reserved_error']:+.1f}%",
            flush=True,
        )
    groups = {
        "all": list(table.values()),
        "lora": [row for label, row in table.items() if " LoRA " in label],
        "qlora": [row for label, row in table.items() if " QLoRA " in label],
        "holdout": [row for row in table.values() if row["role"] == "holdout"],
    }
    for name, members in ((name, members) for name, members in groups.items() if members):
        for kind in ("allocated", "reserved"):
            errors = [abs(row[f"{kind}_error"]) for row in members]
            figures[f"{name}_{kind}"] = {
                "rows": len(errors),
                "mean_absolute_error": statistics.mean(errors),
                "median_absolute_error": statistics.median(errors),
                "worst_absolute_error": max(errors),
            }
    save("memory_t4", {**figures, "rows": table})


if __name__ == "__main__":
    main()
