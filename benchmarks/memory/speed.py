"""The time and the memory that a prediction itself takes: Llama-3-8B on CUDA, from a config.json alone.

    python -m benchmarks.memory.speed

One setting in a new process (imports included), and twelve settings of one study: four variants × three
micro-batches. Figures to reach: 10 s and 1 GB for one, 60 s for twelve, on two cores.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmarks.memory.cpu import VARIANTS, Cell, run_config
from benchmarks.results import save
from sweep.processes import isolated_call

LLAMA_3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def timed(settings: list[tuple[str, int]], report: object = None) -> dict[str, Any]:
    """Predict each (variant, micro-batch size) at 2048 tokens."""
    from transformers import LlamaConfig

    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine

    started, cpu = time.perf_counter(), time.process_time()
    allocated = {}
    with tempfile.TemporaryDirectory() as folder:
        LlamaConfig(**LLAMA_3_8B).save_pretrained(folder)
        for variant, size in settings:
            config = run_config(Cell("llama", variant, "bf16", True), folder)
            train = replace(config.train, micro_batch_size=size, max_length=2048, precision="bf16")
            config = replace(config, train=train)
            found = workload.find(config, Machine(kind="cuda", capability=(9, 0)))
            answer = predictor.trace_tier(
                config, found, Machine(kind="cuda", capability=(9, 0)), config.model.architecture()
            )
            allocated[f"{variant}, {size} × 2048"] = answer.allocated_bytes
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "allocated_bytes": allocated,
    }


def main() -> None:
    started = time.perf_counter()
    one = isolated_call.call("benchmarks.memory.speed:timed", [("lora_r16", 4)])
    cold = time.perf_counter() - started
    started = time.perf_counter()
    twelve = isolated_call.call("benchmarks.memory.speed:timed", [(v, size) for v in VARIANTS for size in (1, 2, 4)])
    save(
        "memory_speed",
        {
            "one_cold_seconds": cold,
            "one_seconds": one["seconds"],
            "one_cpu_seconds": one["cpu_seconds"],
            "one_max_rss_bytes": one["max_rss_bytes"],
            "twelve_seconds": time.perf_counter() - started,
            "twelve_cpu_seconds": twelve["cpu_seconds"],
            "twelve_max_rss_bytes": twelve["max_rss_bytes"],
            "allocated_bytes": twelve["allocated_bytes"],
        },
    )


if __name__ == "__main__":
    main()
