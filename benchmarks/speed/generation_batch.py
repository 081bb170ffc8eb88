"""Evaluation by generation: in batches against one by one, on the same prompts with the same answers.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.generation_batch

A small Llama with random weights answers 64 prompts of 8 to 40 tokens with 32 tokens each. To reach: 3 times the speed.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import nullcontext

import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from benchmarks.results import save
from sweep.datasets import Example
from sweep.datasets.files import Files
from sweep.datasets.scan import vocabulary
from sweep.launch import preload
from sweep.metrics.exact_match import ExactMatch
from sweep.models.scan_llama import build_tokenizer
from sweep.tasks.generation import Generation

PROMPTS, NEW_TOKENS, BATCH = 64, 32, 32


def main(rounds: int = 3) -> None:
    preload.initialise()  # without the libraries' warnings
    torch.set_num_threads(1)
    set_seed(0)
    tokenizer = build_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=128,
        )
    ).eval()
    source, words = random.Random(0), vocabulary()
    examples: list[Example] = [
        {"prompt": " ".join(source.choices(words, k=source.randint(8, 40))), "response": "x"} for _ in range(PROMPTS)
    ]
    task = Generation(
        data=Files(train="unused.csv"), metrics={"em": ExactMatch()}, score="em", max_new_tokens=NEW_TOKENS
    )
    seconds: dict[int, list[float]] = {1: [], BATCH: []}
    answers = {}
    for _ in range(rounds):
        for batch, values in seconds.items():
            started = time.perf_counter()
            rows = task.evaluate(model, tokenizer, examples, batch, lambda number: nullcontext()).rows
            values.append(time.perf_counter() - started)
            answers[batch] = [row["prediction"] for row in rows]
    same = sum(a == b for a, b in zip(answers[1], answers[BATCH], strict=True))
    ratios = [alone / together for alone, together in zip(seconds[1], seconds[BATCH], strict=True)]
    save(
        "generation_batch",
        {
            "one_by_one_seconds": statistics.median(seconds[1]),
            "batched_seconds": statistics.median(seconds[BATCH]),
            "batch_size": BATCH,
            "speed_ratio": statistics.median(ratios),
            "same_answers": same,
            "prompts": PROMPTS,
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    main()
