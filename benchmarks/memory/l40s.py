"""Predictions against PEFT's published runs on an L40S: Llama-3.2-3B on MetaMathQA, micro-batches of 4.

    python -m benchmarks.memory.l40s

PEFT's method comparison (Apache-2.0) publishes the memory that the allocator reserved over the whole process: batches
of all lengths up to 768 tokens, generation between them, an emptied cache every ten steps. The prediction is the
reserved memory after steps of 4 × LENGTH tokens alone. The lengths that occurred are not published: the rows hold the
need of 768 tokens, and the length that would explain the published figure. 16-bit weights without autocast, foreach
AdamW, and the model's output kept until the next one, as in PEFT's loop.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

from benchmarks.memory.cpu import Cell, run_config
from benchmarks.results import save
from sweep.processes import isolated_call

# Of method_comparison/MetaMathQA/results, commit a9994269: the largest and the mean of memory_reserved, in bytes.
PUBLISHED = {
    "LoRA r=32 on q, v": (22286434304, 14427567318),
    "LoRA r=64 on q, v": (22554869760, 14680829879),
    "LoRA r=10 on the MLP": (24693964800, 15498352577),
    "FFT": (38549848064, 34309618532),
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA r=32 on q, v": ("lora_r16", {"r": 32, "alpha": 64, "target_modules": ["q_proj", "v_proj"]}),
    "LoRA r=64 on q, v": ("lora_r16", {"r": 64, "alpha": 128, "target_modules": ["q_proj", "v_proj"]}),
    "LoRA r=10 on the MLP": (
        "lora_r16",
        {"r": 10, "alpha": 20, "target_modules": ["gate_proj", "up_proj", "down_proj"]},
    ),
    "FFT": ("fft", {}),
}
LENGTHS = (512, 640, 768)


def predict(name: str, lengths: tuple[int, ...], report: object = None) -> dict[int, dict[str, Any]]:
    from transformers import LlamaConfig

    from sweep.memory import predictor, workload
    from sweep.memory.prediction import Machine

    architecture = LlamaConfig(
        hidden_size=3072,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=8192,
        vocab_size=128256,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    variant, changed = SETTINGS[name]
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        architecture.save_pretrained(folder)
        config = run_config(Cell("llama", variant, "bf16", False), folder)
        kept = keeping(type(config.variant), during_next=True)(**{**vars(config.variant), **changed})
        for length in lengths:
            train = replace(
                config.train, micro_batch_size=4, max_length=length, weight_decay=0.1, eval_batch_size=50, max_steps=3
            )
            run = replace(config, train=train, variant=kept, task=replace(config.task, max_new_tokens=2))
            found = replace(workload.declared(run, length=length, padded=True), prompt_length=766)
            machine = Machine(kind="cuda", capability=(8, 9), name="NVIDIA L40S")
            answers[length] = predictor.trace_tier(run, found, machine, architecture).as_dict()
    return answers


def keeping(family: type, *, during_next: bool) -> type:
    class Keeping(family):
        """The loop's variable holds the output of a forward after it: with `during_next` until the next forward ends,
        else until it starts."""

        def wrap(self, *args: Any) -> Any:
            model = super().wrap(*args)
            last: list[Any] = []
            model.register_forward_hook(lambda module, inputs, output: last.__setitem__(slice(None), [output]))
            if not during_next:
                model.register_forward_pre_hook(lambda *_: last.clear())
            return model

    return Keeping


def main() -> None:
    rows: dict[str, Any] = {}
    for name, (largest, mean) in PUBLISHED.items():
        found = isolated_call.call("benchmarks.memory.l40s:predict", name, LENGTHS)
        rows[name] = {
            "published_max_reserved_bytes": largest,
            "published_mean_reserved_bytes": mean,
            **{
                f"{length} tokens": {
                    "reserved_bytes": answer["reserved_bytes"],
                    "allocated_bytes": answer["allocated_bytes"],
                    "eval_allocated_bytes": answer["eval_bytes"],
                    "peak_at": answer["peak_at"],
                    "reserved_error": answer["reserved_bytes"] / largest - 1,
                }
                for length, answer in found.items()
            },
        }
        print(f"{name:22} published {largest / 1e9:.2f} GB reserved", end="")
        for length in LENGTHS:
            row = rows[name][f"{length} tokens"]
            print(f"; {length}: {row['reserved_bytes'] / 1e9:.2f} ({100 * row['reserved_error']:+.1f}%)", end="")
        print(f"; evaluation allocated {found[LENGTHS[-1]]['eval_bytes'] / 1e9:.2f}", flush=True)
    save("memory_l40s", {"rows": rows})


if __name__ == "__main__":
    main()
