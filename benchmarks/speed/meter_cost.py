"""What the CPU's memory meter costs of a training step's CPU time, while it is on.

    python -m benchmarks.speed.meter_cost

A Llama of 56 million parameters, 2 × 256 tokens, one thread: full fine-tuning, LoRA and QLoRA r=16, with and without
activation checkpointing. Steps with and without the meter alternate in one process, and CPU time is taken, not wall
time: machines are noisy. Figure to reach: at most 8% in each.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
import warnings

from benchmarks.results import save

ROUNDS = 9
BATCH, LENGTH, VOCABULARY = 2, 256, 32000


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from sweep.variants.full import Full
    from sweep.variants.lora import LoRA, QLoRA

    torch.set_num_threads(1)
    folder = tempfile.mkdtemp(prefix="paretune-benchmark-")
    AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            vocab_size=VOCABULARY,
        )
    ).save_pretrained(folder)
    adapter = {"learning_rate": 1e-4, "r": 16, "alpha": 32}
    cells = {
        "fft_fp32": (Full(name="fft", learning_rate=1e-4), torch.float32, False),
        "fft_fp32_checkpointed": (Full(name="fft", learning_rate=1e-4), torch.float32, True),
        "lora_bf16": (LoRA(name="lora", **adapter), torch.bfloat16, False),
        "lora_bf16_checkpointed": (LoRA(name="lora", **adapter), torch.bfloat16, True),
        "qlora_bf16": (QLoRA(name="qlora", **adapter), torch.bfloat16, False),
        "qlora_bf16_checkpointed": (QLoRA(name="qlora", **adapter), torch.bfloat16, True),
    }
    figures: dict[str, float] = {}
    for name, (variant, dtype, checkpointing) in cells.items():
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, quantization_config=variant.quantization(dtype), device_map={"": "cpu"}
        )
        base.config.use_cache = False
        model = variant.wrap(base, "CAUSAL_LM", activation_checkpointing=False)
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        without, with_meter = _seconds(model.train())
        ratios = [on / off for off, on in zip(without, with_meter, strict=True)]
        figures[f"{name}_step_seconds"] = statistics.median(without)
        figures[f"{name}_overhead"] = statistics.median(ratios) - 1
        figures[f"{name}_overhead_of_fastest"] = min(with_meter) / min(without) - 1
    save("meter_cost", {**figures, "rounds": ROUNDS, "load_average_at_end": os.getloadavg()[0]})


def _seconds(model: object) -> tuple[list[float], list[float]]:
    """CPU seconds of steps without and with the meter, alternating."""
    import torch

    from sweep.meters.cpu import LiveStorages, model_tensors

    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=True)
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH))

    def step() -> float:
        started = time.thread_time()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.thread_time() - started

    step()
    meter = LiveStorages()
    for tensor in model_tensors(model):
        meter.add(tensor)
    without, with_meter = [], []
    for _ in range(ROUNDS):
        without.append(step())
        with meter:
            with_meter.append(step())
    return without, with_meter


if __name__ == "__main__":
    main()
