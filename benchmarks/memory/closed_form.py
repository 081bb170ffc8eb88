"""The closed form against the execution on fake tensors: shapes of 1 and 8 billion parameters, on CUDA.

    python -m benchmarks.memory.closed_form

Figure to reach: within 1% in every cell.
"""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from benchmarks.results import save
from sweep.config.schema import plain_config
from sweep.core.paths import CONF
from sweep.memory import Machine, Prediction, predict
from sweep.memory.closed_form.estimate import predict_by_formula

_LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16",
          "max_position_embeddings": 8192, "vocab_size": 128256}  # fmt: skip
SHAPES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "tie_word_embeddings": False},
}  # fmt: skip


def cells(folder: Path) -> dict[str, dict]:
    """The cells: name → resolved config."""
    found = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for shape, sizes in SHAPES.items():
            (folder / shape).mkdir()
            (folder / shape / "config.json").write_text(json.dumps({**_LLAMA, **sizes}))
            for variant in ("fft", "lora_r16", "qlora_r16"):
                for checkpointing in (False, True):
                    for batch, length in ((1, 512), (1, 2048), (4, 512)):
                        overrides = [
                            "model=pretrained", f"model.path={folder / shape}", f"variant={variant}",
                            f"train.activation_checkpointing={checkpointing}", f"train.micro_batch_size={batch}",
                            f"train.max_length={length}", "train.gradient_accumulation_steps=1", "train.max_steps=10",
                        ]  # fmt: skip
                        composed = compose("config", overrides, return_hydra_config=True)
                        composed.hydra.runtime.cwd = str(folder)
                        HydraConfig.instance().set_config(composed)
                        name = f"{shape} {variant} {'checkpointed ' if checkpointing else ''}{batch}x{length}"
                        found[name] = plain_config(composed)
    return found


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    machine = Machine(kind="cuda", capability=(8, 0))
    with tempfile.TemporaryDirectory(prefix="paretune-benchmark-") as folder:
        configs = cells(Path(folder))
        executed = predict(list(configs.values()), machine)
        errors, refused = {}, {}
        for (name, config), traced in zip(configs.items(), executed, strict=True):
            formed = predict_by_formula(config, machine)
            if isinstance(traced, Prediction) and traced.tier == "trace" and isinstance(formed, Prediction):
                errors[name] = formed.allocated_bytes / traced.allocated_bytes - 1
            else:
                refused[name] = "not executed" if isinstance(formed, Prediction) else formed.reason
    sizes = [abs(error) for error in errors.values()]
    worst = max(errors, key=lambda name: abs(errors[name]))
    save(
        "closed_form",
        {
            "cells": len(errors),
            "mean_error": statistics.mean(sizes),
            "worst_error": errors[worst],
            "worst_cell": worst,
            "errors": {name: round(error, 6) for name, error in errors.items()},
            "left_out": refused,
        },
    )


if __name__ == "__main__":
    main()
