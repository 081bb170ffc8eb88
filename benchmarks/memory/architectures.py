"""Predicted against measured memory on the CPU, for the architectures that people fine-tune.

    python -m benchmarks.memory.architectures [architecture …]

A tiny model of each with random weights, for the task that it fits: full fine-tuning and QLoRA in fp32, LoRA in bf16
and under bf16 autocast with checkpointing. Each is predicted from its config, and trained for three steps under the
meter. It is also predicted for a Hopper GPU: there is no measurement to compare with, but the prediction must be by
execution. A cell that cannot be predicted or trained is kept with its error message. Takes half an hour on two cores.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.memory import cpu
from benchmarks.memory.cpu import Cell
from benchmarks.results import save
from sweep.processes import isolated_call

CELLS = [
    Cell("", "fft", "fp32", False),
    Cell("", "lora_r8", "bf16", False),
    Cell("", "lora_r8", "autocast", True),
    Cell("", "qlora_r16", "fp32", False),
]
HEADS = {"classification": "SequenceClassification", "generation": "CausalLM", "seq2seq": "Seq2SeqLM"}

_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_BASE = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 4000, **_SPECIAL}
_ENCODER = {**_BASE, "intermediate_size": 256}
_DECODER = {**_ENCODER, "num_key_value_heads": 2}
_WIDE = {**_DECODER, "head_dim": 32}
_WINDOW = {**_WIDE, "sliding_window": 64}
_GPT = {"n_embd": 128, "n_layer": 6, "n_head": 4, "vocab_size": 4000, **_SPECIAL}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_T5 = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 4,
       "vocab_size": 4000, "decoder_start_token_id": 0, "eos_token_id": 1}  # fmt: skip
_BART = {"d_model": 128, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 4, "vocab_size": 4000,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "decoder_start_token_id": 2,
         **_SPECIAL}  # fmt: skip
_LATENT = {**_DECODER, **_EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "q_lora_rank": 32,
           "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32, "n_group": 1,
           "topk_group": 1, "first_k_dense_replace": 1}  # fmt: skip
_STATES = {"hidden_size": 128, "num_hidden_layers": 6, "state_size": 16, "vocab_size": 4000, **_SPECIAL}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "classification": {
        "bert": _ENCODER,
        "roberta": {**_ENCODER, "max_position_embeddings": 600},
        "xlm-roberta": {**_ENCODER, "max_position_embeddings": 600},
        "deberta-v2": _ENCODER,
        "electra": {**_ENCODER, "embedding_size": 64},
        "albert": {**_ENCODER, "embedding_size": 64},
        "mpnet": _ENCODER,
        "distilbert": {"dim": 128, "n_layers": 6, "n_heads": 4, "hidden_dim": 256, "vocab_size": 4000},
        "modernbert": {**_ENCODER, "cls_token_id": 1, "sep_token_id": 2},
        "xlnet": {"d_model": 128, "n_layer": 6, "n_head": 4, "d_inner": 256, "vocab_size": 4000},
        "llama": _DECODER,
        "gpt2": _GPT,
        "bart": _BART,
        "t5": _T5,
    },
    "generation": {
        "gpt2": _GPT,
        "gpt_neo": {"hidden_size": 128, "num_layers": 6, "num_heads": 4, "intermediate_size": 256, "vocab_size": 4000,
                    "attention_types": [[["global", "local"], 3]], "window_size": 64, **_SPECIAL},
        "gpt_neox": _ENCODER,
        "gptj": {**_GPT, "rotary_dim": 16},
        "opt": {**_BASE, "ffn_dim": 256, "word_embed_proj_dim": 128},
        "bloom": {"hidden_size": 128, "n_layer": 6, "n_head": 4, "vocab_size": 4000, **_SPECIAL},
        "falcon": _BASE,
        "phi": _ENCODER,
        "phi3": _ENCODER,
        "llama": _DECODER,
        "mistral": _WINDOW,
        "mixtral": {**_DECODER, **_EXPERTS},
        "qwen2": _DECODER,
        "qwen3": _WIDE,
        "qwen2_moe": {**_DECODER, **_EXPERTS, "shared_expert_intermediate_size": 128},
        "qwen3_moe": {**_WIDE, **_EXPERTS},
        "qwen3_next": {**_WIDE, **_EXPERTS, "shared_expert_intermediate_size": 64},
        "gemma": _WIDE,
        "gemma2": {**_WINDOW, "query_pre_attn_scalar": 32},
        "gemma3_text": {**_WINDOW, "query_pre_attn_scalar": 32},
        "olmo2": _DECODER,
        "olmo3": {**_DECODER, "sliding_window": 64},
        "olmoe": {**_DECODER, **_EXPERTS},
        "stablelm": _DECODER,
        "starcoder2": _DECODER,
        "granite": _DECODER,
        "granitemoe": {**_DECODER, **_EXPERTS},
        "cohere": _DECODER,
        "cohere2": {**_DECODER, "sliding_window": 64},
        "smollm3": _DECODER,
        "nemotron": _DECODER,
        "glm4": _WIDE,
        "gpt_oss": {**_WINDOW, **_EXPERTS},
        "deepseek_v2": _LATENT,
        "deepseek_v3": _LATENT,
        "lfm2": _DECODER,
        "mamba": _STATES,
        "mamba2": {**_STATES, "head_dim": 32, "num_heads": 8, "n_groups": 1},
        "jamba": {**_DECODER, **_EXPERTS, "use_mamba_kernels": False, "mamba_d_state": 8},
    },
    "seq2seq": {"t5": _T5, "mt5": _T5, "bart": _BART, "mbart": _BART, "pegasus": _BART},
}  # fmt: skip


def save_checkpoint(task: str, name: str, folder: str, report: object = None, **smaller: Any) -> None:
    """Random weights, as `save_pretrained` writes them."""
    import transformers

    config = transformers.AutoConfig.for_model(name, **(MODELS[task][name] | smaller))
    getattr(transformers, f"AutoModelFor{HEADS[task]}").from_config(config).save_pretrained(folder)


def run_config(task: str, cell: Cell, folder: str) -> Any:
    """The cell as a run of the program, with the fused attention kernel where the architecture has one."""
    from sweep.core.errors import UserError
    from sweep.tasks.seq2seq import Seq2Seq

    config = cpu.run_config(cell._replace(architecture="distilbert" if task == "classification" else ""), folder)
    if task == "seq2seq":
        given = {name: getattr(config.task, name) for name in ("data", "metrics", "score", "max_new_tokens")}
        config = dataclasses.replace(config, task=Seq2Seq(**given))
    try:
        config.model.check(config.task.auto_class())
    except UserError:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, attention="eager"))
    return config


def predict_all(task: str, folder: str, kind: str, report: object = None) -> list[dict[str, Any]]:
    """The predictions for a device of `kind`, "cpu" or "cuda"; in a process that has computed no gradients."""
    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine, Prediction

    machine = Machine(kind="cpu") if kind == "cpu" else Machine(kind="cuda", capability=(9, 0))
    rows = []
    for cell in CELLS:
        config = run_config(task, cell, folder)
        found = workload.declared(config, length=cpu.TOKENS[1], padded=False)
        answer = predictor.answer(config, found, machine, config.model.architecture())
        if not isinstance(answer, Prediction):
            rows.append({f"{kind}_reason": answer.reason})
            continue
        notes = {key: answer.assumptions[key] for key in ("not_executed", "evaluation") if key in answer.assumptions}
        rows.append(
            {
                f"{kind}_tier": answer.tier,
                f"{kind}_predicted_bytes": answer.allocated_bytes,
                **{f"{kind}_{key}": value for key, value in notes.items()},
            }
        )
    return rows


def measure_all(task: str, folder: str, report: object = None) -> list[dict[str, Any]]:
    from sweep.memory import workload

    rows: list[dict[str, Any]] = []
    for cell in CELLS:
        config = run_config(task, cell, folder)
        found = workload.declared(config, length=cpu.TOKENS[1], padded=False)
        row: dict[str, Any] = {"attention": config.model.attention}
        try:
            row["measured_bytes"] = cpu.measure(config, found)["memory/train_max_allocated_bytes"]
        except Exception as error:  # noqa: BLE001  kept with the prediction
            row["not_trained"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def main() -> None:
    chosen = sys.argv[1:]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for task, models in MODELS.items():
            for name in models:
                if not chosen or name in chosen:
                    _one(task, name, f"{scratch}/{task}-{name}", Path(scratch, "log.txt"), rows)
    errors = [abs(row["error"]) for row in rows.values() if "error" in row]
    figures = {
        "architectures": len({label.split()[0] for label in rows}),
        "cells": len(rows),
        "compared": len(errors),
        "mean_absolute_error": statistics.mean(errors),
        "worst_absolute_error": max(errors),
        "answered_for_cuda": sum("cuda_predicted_bytes" in row for row in rows.values()),
        "rows": rows,
    }
    print({key: value for key, value in figures.items() if key != "rows"})
    if not chosen:
        save("memory_architectures", figures)


def _one(task: str, name: str, folder: str, log_file: Path, rows: dict[str, Any]) -> None:
    isolated_call.call("benchmarks.memory.architectures:save_checkpoint", task, name, folder, log_file=log_file)
    here = "benchmarks.memory.architectures"
    predicted = [
        isolated_call.call(f"{here}:predict_all", task, folder, kind, log_file=log_file) for kind in ("cpu", "cuda")
    ]
    measured = isolated_call.call(f"{here}:measure_all", task, folder, log_file=log_file)
    for cell, *parts in zip(CELLS, *predicted, measured, strict=True):
        row = parts[0] | parts[1] | parts[2]
        label = f"{name} {task} {cell.variant} {cell.precision}{' checkpointed' if cell.checkpointing else ''}"
        rows[label] = row
        if "cpu_predicted_bytes" in row and "measured_bytes" in row:
            row["error"] = row["cpu_predicted_bytes"] / row["measured_bytes"] - 1
        said = f"{100 * row['error']:+8.4f}%" if "error" in row else ""
        notes = [
            str(value) for key, value in row.items() if key.endswith(("reason", "executed", "evaluation", "trained"))
        ]
        print(f"{label:60} {said} {row['attention']} {' | '.join(dict.fromkeys(notes))[:200]}", flush=True)


if __name__ == "__main__":
    main()
