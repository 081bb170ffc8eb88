"""Checkpoints with random weights, and the rows that the studies of the checks train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.memory.speed import LLAMA_3_8B

TINY = {**LLAMA_3_8B, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 128, "vocab_size": 512}  # fmt: skip
SMALL = {
    **LLAMA_3_8B,
    "hidden_size": 2048,
    "num_hidden_layers": 4,
    "intermediate_size": 8192,
}  # 0.77 billion parameters
ROWS = 4096


def save_model(shape: dict[str, Any], folder: str, device: str, report: object = None) -> None:
    """Random bf16 weights, made on the device, with the embedded benchmark's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sweep.models.scan_llama import build_tokenizer

    torch.set_default_dtype(torch.bfloat16)
    tokenizer = build_tokenizer()
    ids = {"pad_token_id": 0, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**shape, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(file: Path) -> None:
    """Prompts and responses that a model can learn: the response repeats as often as the row's number says."""
    rows = ({"prompt": f"walk left {'twice ' * (i % 7)}", "response": "look " * (i % 7 + 1)} for i in range(ROWS))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
