"""Checks of runs, each as a study of the command line: outcomes, measurements, precision, energy, several GPUs."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.acceptance.check import Bench, Findings, Skipped, command, is_positive
from benchmarks.acceptance.models import ROWS
from sweep.processes import isolated_call

VARIANTS = ("fft", "lora_r8", "lora_r16", "qlora_r16")
_OTHERS_GIB = 4  # what is left of the GPU while another process holds the rest


def study(bench: Bench, name: str, *overrides: str, limit_bytes: int | None = None) -> list[dict[str, Any]]:
    """The records of a study, in the order of their runs. `limit_bytes` is all that PyTorch's allocator may take."""
    rows = bench.folder / "rows.jsonl"
    given = [
        f"study.name={name}", "study.max_attempts=1", "model=pretrained", f"model.path={bench.folder}/small",
        "task=generation", "data@task.data=files", f"task.data.train={rows}", f"task.data.validation={rows}",
        "task.data.n_validation=16", "task.max_new_tokens=8", "train.max_steps=12", "train.max_length=64",
        "train.gradient_accumulation_steps=1", "train.micro_batch_size=8", "train.eval_batch_size=8",
    ]  # fmt: skip
    env = {}
    if limit_bytes is not None and bench.is_gpu:
        env["PYTORCH_ALLOC_CONF"] = f"per_process_memory_fraction:{limit_bytes / bench.capacity_bytes:.6f}"
    ended = command(bench, "sweep", "-m", *_without_repeats(given, overrides), env=env)
    files = sorted(
        (bench.folder / "outputs/studies" / name).glob("*/record.json"), key=lambda file: int(file.parent.name)
    )
    if not files:
        raise RuntimeError(f"the study {name} has no run: {(ended.stdout + ended.stderr)[-1500:]}")
    return [json.loads(file.read_text()) for file in files]


def _without_repeats(given: list[str], overrides: tuple[str, ...]) -> list[str]:
    keys = {override.partition("=")[0] for override in overrides}
    return [line for line in given if line.partition("=")[0] not in keys] + list(overrides)


def variants(bench: Bench, found: Findings) -> None:
    """The four variants train on one GPU, and each record has its measurements."""
    records = study(bench, "variants", f"variant={','.join(VARIANTS)}", "train.eval_steps=6")
    found.expect(len(records) == len(VARIANTS), f"there are {len(VARIANTS)} runs: there are {len(records)}")
    peaks = {}
    for record in records:
        name, measured = record["variant"], record["measurements"]
        found.figures[name] = {"outcome": record["outcome"], "reason": record["reason"], **measured}
        found.expect(record["outcome"] == "ok", f"{name} ends ok: {record['outcome']}, {record['reason']}")
        if record["outcome"] != "ok":
            continue
        for key in ("max_memory_allocated", "tokens_per_second", "train_seconds", "trainable_params"):
            found.expect(is_positive(measured.get(key)), f"{name} has {key}: {measured.get(key)}")
        found.expect(math.isfinite(measured["train/final_loss"]), f"the loss of {name} is finite")
        error = measured.get("memory/prediction_error", math.nan)
        found.expect(abs(error) <= 0.01, f"the memory of {name} is predicted within 1%: {error:+.2%}")
        peaks[name] = measured["max_memory_allocated"]
        if bench.is_gpu:
            joules, seconds = measured.get("energy_joules"), measured["train_seconds"]
            source = record["facts"].get("energy_source", "")
            found.expect(joules is not None or source.startswith("none"), f"{name} has joules or a reason: {source}")
            if joules is not None:
                found.expect(10 < joules / seconds < 3000, f"{name} draws 10 to 3,000 W: {joules / seconds:.0f} W")
    found.figures |= {f"{name}_peak_bytes": peak for name, peak in peaks.items()}


def report(bench: Bench, found: Findings) -> None:
    """The study of the four variants has a report with charts, and MLflow has its runs."""
    ended = command(bench, "analysis", "study=variants", "margin=0.01")  # the model may learn nothing
    found.expect(ended.returncode == 0, f"the analysis ends with 0: {ended.returncode}, {ended.stderr[-500:]}")
    folder = bench.folder / "reports/variants"
    for file in ("report.html", "recommendation.json", "runs.csv", "settings.csv"):
        found.expect((folder / file).is_file(), f"the report has {file}")
    charts = sorted(file.name for file in folder.glob("*.png"))
    found.expect(len(charts) > 0, "the report has charts")
    found.figures["charts"] = len(charts)


def repeatability(bench: Bench, found: Findings) -> None:
    """Two runs of one setting and seed have one peak of memory, byte for byte."""
    peaks = [
        study(bench, name, "variant=lora_r8", "study.predict_memory=false")[0]["measurements"].get(
            "max_memory_allocated"
        )
        for name in ("first", "second")
    ]
    found.figures |= {"first_bytes": peaks[0], "second_bytes": peaks[1]}
    found.expect(is_positive(peaks[0]) and peaks[0] == peaks[1], f"both peaks are equal: {peaks}")


def out_of_memory(bench: Bench, found: Findings) -> None:
    """Too little memory is the outcome `oom`, in loading, training and evaluation, and the study goes on."""
    small = sum(file.stat().st_size for file in (bench.folder / "small").glob("*.safetensors"))
    off, beyond = "study.predict_memory=false", ROWS
    training = ("train.micro_batch_size=" + f"{beyond},1", "train.max_length=1024", off, "variant=lora_r8")
    cases: dict[str, tuple[tuple[str, ...], int | None, tuple[str, ...]]] = {
        "training": (training, 4 * small, ("oom", "ok")),
        "loading": (("variant=lora_r8", off), small // 2, ("oom",)),
        "loading_in_4_bits": (("variant=qlora_r16", off), small // 8, ("oom",)),
        "evaluation": (("variant=lora_r8", off, "train.micro_batch_size=1", f"train.eval_batch_size={beyond}",
                        f"task.data.n_validation={beyond}", "task.max_new_tokens=64"), 2 * small, ("oom",)),
    }  # fmt: skip
    for name, (overrides, limit, expected) in cases.items():
        if name != "training" and not bench.is_gpu:
            continue  # the CPU has no limit that a variable sets
        records = study(bench, f"oom_{name}", *overrides, limit_bytes=limit)
        outcomes = tuple(record["outcome"] for record in records)
        found.figures[name] = ", ".join(outcomes)
        found.figures[f"{name}_reasons"] = [record["reason"] for record in records]
        if bench.is_gpu or name != "training":
            found.expect(outcomes == expected, f"{name} ends {expected}: {outcomes}, {records[0]['reason'][:300]}")


def hold(free_bytes: int, file: str, report: object = None) -> None:
    """Take all memory of the first GPU but `free_bytes`, until the file exists."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - free_bytes), dtype=torch.uint8, device="cuda")
    Path(file + ".ready").touch()
    while not Path(file).exists():
        time.sleep(0.1)
    del held


def others_memory(bench: Bench, found: Findings) -> None:
    """A run that dies because another process holds the GPU's memory is `failed`, not a setting that does not fit."""
    bench.need_gpu("memory of another process")
    import threading

    from sweep.launch import device_leases

    file = bench.folder / "release"
    holder = threading.Thread(
        target=isolated_call.call,
        args=("benchmarks.acceptance.runs:hold", _OTHERS_GIB << 30, str(file)),
        kwargs={"env": device_leases.leases("auto")[0].env},
    )
    holder.start()
    try:
        deadline = time.monotonic() + 120
        while not Path(f"{file}.ready").exists():
            if time.monotonic() > deadline or not holder.is_alive():
                raise RuntimeError("the other process did not take its memory")
            time.sleep(0.1)
        overrides = (
            "variant=lora_r8",
            "study.predict_memory=false",
            "train.micro_batch_size=512",
            "train.max_length=512",
        )
        (record,) = study(bench, "others", *overrides)
    finally:
        file.touch()
        holder.join()
    found.figures |= {"outcome": record["outcome"], "reason": record["reason"][:300]}
    found.expect(record["outcome"] == "failed", f"the run is failed: {record['outcome']}")
    found.expect("other" in record["reason"], f"its reason names the other processes: {record['reason'][:300]}")


def fp16(bench: Bench, found: Findings) -> None:
    """fp16 trains a bf16 checkpoint, full weights and adapters, as a T4 must."""
    bench.need_gpu("fp16")
    records = study(bench, "fp16", "variant=fft,lora_r8,last_layer,qlora_r16", "train.precision=fp16")
    for record in records:
        found.figures[record["variant"]] = record["outcome"]
        found.expect(record["outcome"] == "ok", f"{record['variant']} ends ok: {record['reason'][:300]}")


def energy(bench: Bench, found: Findings) -> None:
    """The driver's energy counter and integrated power samples agree within 15%."""
    bench.need_gpu("energy")
    from sweep.launch import device_leases

    measured = isolated_call.call("benchmarks.acceptance.runs:two_meters", env=device_leases.leases("auto")[0].env)
    found.figures |= measured
    if measured["counted_joules"] is None:
        raise Skipped(f"this GPU has no energy counter: {measured['source']}")
    ratio = measured["sampled_joules"] / measured["counted_joules"]
    found.expect(abs(ratio - 1) <= 0.15, f"samples / counter is 1 within 15%: {ratio:.3f}")


def two_meters(report: object = None) -> dict[str, Any]:
    """Joules of five seconds of matrix products, by the counter and by samples of the power."""
    import torch

    from sweep.meters.energy import EnergyMeter

    meter, sampled = EnergyMeter(), EnergyMeter()
    with meter, sampled:
        sampled._counters.clear()
        sampled._sample()
        matrix = torch.randn(4096, 4096, device="cuda")
        end = time.perf_counter() + 5
        while time.perf_counter() < end:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
            torch.cuda.synchronize()
    return {"counted_joules": meter.joules, "sampled_joules": sampled.joules, "source": meter.source}


def several_gpus(bench: Bench, found: Findings) -> None:
    """One run on two GPUs, by DDP and by FSDP."""
    if bench.is_gpu and bench.gpus < 2:
        raise Skipped("there is one GPU")
    for parallelism in ("ddp", "fsdp") if bench.is_gpu else ("ddp",):
        (record,) = study(
            bench, parallelism, "variant=lora_r8", "train.devices_per_run=2", "train.micro_batch_size=2",
            f"train.parallelism={parallelism}",
        )  # fmt: skip
        found.figures[parallelism] = record["outcome"]
        found.expect(record["outcome"] == "ok", f"{parallelism} ends ok: {record['reason'][:300]}")
