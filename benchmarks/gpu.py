"""What only a GPU can show, in under ten minutes on a card of 80 GB: outcomes, memory by phase, speed, energy.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --dry-run       # the same code on the CPU with tiny shapes: nothing is kept

Four variants on a model of Llama-3-8B's shape with random weights, each loaded once in a process of its own, then
trained on micro-batches of 1 to 4 rows of 512 to 2,048 tokens, without and with activation checkpointing: outcome, peak
memory by phase, tokens per second, joules, and which optimizer ran (QLoRA's is paged AdamW). Then the fork server: what
its children see of CUDA, and that the server has not touched it. Then a study of two runs through the command line, the
second of which asks for far more memory than any card has. With two GPUs, the ranks of one run by DDP and by FSDP.

It needs 17 GB of disk while it runs, and no network. It has not been run on a GPU yet: no figure of it is in results/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.memory.cpu import VARIANTS, Cell, run_config
from benchmarks.memory.speed import LLAMA_3_8B
from benchmarks.results import save
from sweep.processes import isolated_call

TINY = {**LLAMA_3_8B, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 128, "vocab_size": 512}  # fmt: skip
STEPS = 6  # the first three are warm-up, and not timed
BEYOND_ANY_CARD = 4096  # rows of one micro-batch: their logits alone are 134 GB


class Setup(NamedTuple):
    device: str
    shapes: tuple[tuple[int, int], ...]  # rows × tokens of a micro-batch, the smallest first
    small: dict[str, Any]  # for the study and the ranks


REAL = Setup("cuda", ((1, 512), (4, 512), (1, 2048), (4, 2048)), {**TINY, "hidden_size": 1024, "vocab_size": 8192})
DRY = Setup("cpu", ((1, 16), (2, 32)), TINY)


def save_model(shape: dict[str, Any], folder: str, device: str, report: object = None) -> None:
    """Random weights, made on the device, with the embedded benchmark's tokenizer."""
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


def cells(variant: str, folder: str, setup: Setup, report: object = None) -> dict[str, Any]:
    """One variant: loaded, then trained on every shape. A cell that runs out of memory is a row like the others."""
    import gc

    import torch

    from sweep.memory import workload
    from sweep.meters import memory_meter
    from sweep.runtime import precision

    config = run_config(Cell("llama", variant, "bf16", False), folder)
    if variant == "qlora_r16":
        config = replace(config, variant=replace(config.variant, paged_optimizer=True))
    tokens = max(length for _, length in setup.shapes)
    config = replace(config, train=replace(config.train, precision="bf16", max_steps=STEPS, max_length=tokens))
    task = workload.declared(config, length=tokens, padded=False).task
    meter = memory_meter(setup.device)
    started = time.perf_counter()
    with meter.phase("load"), meter.window():
        quantization = config.variant.quantization(precision.dtype_of("bf16"), task.task_type)
        base = config.model.load(task.auto_class(), quantization, setup.device, {})
        model = config.variant.wrap(base, task.task_type, False)
        meter.watch(model)
    rows: dict[str, Any] = {"load": {"seconds": time.perf_counter() - started, **meter.readings}}
    for checkpointing in (False, True):
        for size, length in setup.shapes:
            train = replace(
                config.train, micro_batch_size=size, max_length=length, activation_checkpointing=checkpointing
            )
            label = f"{size} × {length}, checkpointing={checkpointing}"
            rows[label] = _cell(replace(config, train=train), model, length, setup.device)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(variant, label, rows[label], flush=True)
    return rows


def _cell(config: Any, model: Any, length: int, device: str) -> dict[str, Any]:
    from sweep.memory import workload
    from sweep.meters import memory_meter
    from sweep.meters.energy import EnergyMeter
    from sweep.runtime.out_of_memory import is_out_of_memory
    from sweep.training.fit import fit

    found = workload.declared(config, length=length, padded=False)
    meter, energy, row = memory_meter(device), EnergyMeter(), {"outcome": "ok"}
    try:
        with meter.phase("train"), energy:
            meter.watch(model)
            fitted = fit(
                model,
                list(found.rows) * STEPS,
                found.task.collator(found.tokenizer),
                config.train,
                learning_rate=1e-5,
                seed=0,
                optimizer=config.variant.optimizer(device),
                meter=meter,
            )
        row |= {
            "tokens_per_second": fitted.tokens_per_second,
            "loss": fitted.loss,
            "train_seconds": fitted.train_seconds,
        }
    except Exception as error:
        if not (meter.ran_out or is_out_of_memory(error)):
            raise
        row |= {"outcome": "oom", **meter.out_of_memory()}
    optimizer = getattr(meter._optimizer, "optimizer", meter._optimizer)
    paged = getattr(optimizer, "is_paged", False)
    return row | meter.readings | {
        "joules": energy.joules, "energy_source": energy.source, "optimizer": type(optimizer).__name__, "paged": paged,
    }  # fmt: skip


def seen(report: object = None) -> dict[str, Any]:
    """What a child of the fork server sees of CUDA. That the server had not touched it was checked as it began."""
    import os

    import torch

    count = torch.cuda.device_count()
    return {
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "devices": [torch.cuda.get_device_name(index) for index in range(count)],
        "works": float(torch.ones(2, device="cuda").sum()) if count else None,
    }


def fork_server() -> dict[str, Any]:
    started = time.perf_counter()
    child = isolated_call.call("benchmarks.gpu:seen", env={"CUDA_VISIBLE_DEVICES": "0"})
    seconds = time.perf_counter() - started
    return {
        **child,
        "start_seconds": seconds,
        "server_never_initialised_cuda": isolated_call.training_server().method == "forkserver",
    }


def study(folder: Path, model: Path, *overrides: str, name: str) -> list[dict[str, Any]]:
    """A study through the command line, predictions off, so that what cannot fit is launched too."""
    rows = [{"prompt": "walk left " * 16, "response": "look " * (index % 7 + 1)} for index in range(BEYOND_ANY_CARD)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        f"study.name={name}", "study.predict_memory=false", "model=pretrained", f"model.path={model}",
        "task=generation",
        "data@task.data=files", f"task.data.train={folder}/rows.jsonl", f"task.data.validation={folder}/rows.jsonl",
        "task.data.n_validation=8", "task.max_new_tokens=4", "train.max_steps=4", "train.max_length=1024",
        "train.gradient_accumulation_steps=1", "train.eval_batch_size=8", "variant=lora_r8",
    ]  # fmt: skip
    command = [sys.executable, "-m", "sweep", "-m", *given, *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr[-2000:], flush=True)
    found = sorted((folder / "outputs/studies" / name).glob("*/record.json"))
    records = [json.loads(file.read_text()) for file in found]
    keys = ("setting", "outcome", "reason")
    return [{**{key: record[key] for key in keys}, **record["measurements"]} for record in records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true")
    dry = parser.parse_args().dry_run
    setup, shape = (DRY, TINY) if dry else (REAL, LLAMA_3_8B)
    started = time.perf_counter()
    first = fork_server()
    if not dry and not first["devices"]:
        sys.exit("There is no CUDA GPU that PyTorch sees; --dry-run goes through the same code on the CPU.")
    figures: dict[str, Any] = {"fork_server": first}
    with tempfile.TemporaryDirectory(prefix="paretune-gpu-") as scratch:
        folder = Path(scratch)
        isolated_call.call("benchmarks.gpu:save_model", shape, f"{folder}/large", setup.device)
        isolated_call.call("benchmarks.gpu:save_model", setup.small, f"{folder}/small", setup.device)
        for variant in VARIANTS:
            log_file = folder / f"{variant}.txt"
            try:
                figures[variant] = isolated_call.call(
                    "benchmarks.gpu:cells", variant, f"{folder}/large", setup, log_file=log_file
                )
            except (isolated_call.ChildFailed, isolated_call.ChildKilled) as error:
                figures[variant] = {"outcome": f"failed: {error}"}
            print(log_file.read_text()[-3000:], flush=True)
        sizes = "1,4" if dry else f"{BEYOND_ANY_CARD},1"  # the study goes on after the first
        figures["out_of_memory"] = study(folder, folder / "small", f"train.micro_batch_size={sizes}", name="oom")
        if dry or _gpus() > 1:
            parts = ("train.devices_per_run=2", "train.micro_batch_size=2")
            for parallel in ("ddp", "fsdp"):
                figures[parallel] = study(
                    folder, folder / "small", *parts, f"train.parallelism={parallel}", name=parallel
                )
    figures["seconds"] = time.perf_counter() - started
    print(json.dumps(figures, indent=1)) if dry else save("gpu", figures)


def _gpus() -> int:
    return len(isolated_call.call("benchmarks.gpu:seen")["devices"])


if __name__ == "__main__":
    main()
