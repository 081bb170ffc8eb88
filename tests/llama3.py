"""The architecture of Llama 3 8B, without weights, and a card to predict for."""

from __future__ import annotations

import json
from pathlib import Path

from sweep.memory.prediction import Machine

A100 = Machine(kind="cuda", capability=(8, 0), name="A100", capacity_bytes=80 * 10**9)
LLAMA3_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def architecture(folder: Path, **changed: object) -> Path:
    """A checkpoint without weights: its config.json alone."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA3_8B, **changed}))
    return folder
