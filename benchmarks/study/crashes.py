"""SIGKILL for the coordinator at random moments, several times. At the end, is every run done exactly once?

    python -m benchmarks.study.crashes [KILLS] [SEED]      10 kills take about five minutes on two cores

A study of 3 variants x 4 seeds of a tiny model, two runs at a time. Every other command is killed up to 10 s after its
start, while it imports, creates its databases and launches. The others are killed up to 5 s after their first run
starts, while runs train, are evaluated and are stored. The last command runs to its end.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.results import save

VARIANTS, SEEDS = ("fft", "lora_r8", "ln_tuning"), (0, 1, 2, 3)
STARTING_SECONDS, WORKING_SECONDS = 10.0, 5.0


def tiny_model(folder: Path) -> None:
    """An untrained Llama with SCAN's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sweep.models.scan_llama import POSITIONS, build_tokenizer

    tokenizer = build_tokenizer()
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, **sizes, **special)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def command(model: Path) -> list[str]:
    sweep = [f"variant={','.join(VARIANTS)}", f"seed={','.join(map(str, SEEDS))}", "hydra.sweeper.n_jobs=2"]
    small = ["train.max_steps=60", "train.micro_batch_size=4", "task.data.n_train=64", "task.data.n_validation=20",
             "task.max_new_tokens=4", "study.predict_memory=false"]  # fmt: skip
    study = ["-m", "study.name=crashes", "model=pretrained", f"model.path={model}"]
    return [sys.executable, "-m", "sweep", *study, *sweep, *small]


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def logs(folder: Path) -> int:
    return len(list(folder.glob("outputs/**/run.log")))


def killed_after(seconds: float, working: bool, arguments: list[str], folder: Path) -> float:
    """Start the command, and kill it `seconds` after its start, or with `working` after the start of its first run.
    Returns the seconds until none of its processes was left."""
    before = logs(folder)
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(arguments, cwd=folder, stdout=output, stderr=output)
    while working and logs(folder) == before and process.poll() is None:
        time.sleep(0.05)
    time.sleep(seconds)
    below = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begin = time.monotonic()
    while any(map(alive, below)):
        if time.monotonic() - begin > 60:
            raise SystemExit(f"orphans after a minute: {[pid for pid in below if alive(pid)]}")
        time.sleep(0.02)
    return time.monotonic() - begin


def counted(folder: Path) -> dict[str, Any]:
    """The number of rows by outcome, and of output folders.

    Raises:
        SystemExit: if a run is missing, was done twice, or left a wrong row or folder.
    """
    import optuna
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("paretune")
    rows = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    outcomes = Counter(row.data.tags["outcome"] for row in rows)
    done = Counter((row.data.tags["setting"], int(row.data.tags["seed"])) for row in rows if _ok(row))
    states = Counter(t.state.name for t in optuna.load_study(study_name="crashes", storage=_optuna(folder)).trials)
    folders = [path for path in (folder / "outputs/studies/crashes").iterdir() if (path / ".hydra").is_dir()]
    wrong = {
        "runs": done != Counter({(variant, seed): 1 for variant in VARIANTS for seed in SEEDS}),
        "outcomes": set(outcomes) - {"ok", "killed"},
        "still running": [row.info.run_id for row in rows if row.info.status == "RUNNING"],
        "trials": states != Counter(COMPLETE=len(VARIANTS)),
        "folders": len(folders) < len(rows),
    }
    if any(wrong.values()):
        raise SystemExit(f"{wrong}\n{done}\n{outcomes}\n{states}\n{len(folders)} folders, {len(rows)} rows")
    return {"rows_ok": outcomes["ok"], "rows_killed": outcomes["killed"], "output_folders": len(folders)}


def _ok(row: Any) -> bool:
    return row.data.tags["outcome"] == "ok"


def _optuna(folder: Path) -> str:
    return f"sqlite:///{folder}/optuna.db"


def main(kills: int = 10, seed: int = 0) -> None:
    moments = random.Random(seed)
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_model(folder / "model")
        arguments = command(folder / "model")
        left = []
        for number in range(kills):
            working = number % 2 == 1
            seconds = moments.uniform(0, WORKING_SECONDS if working else STARTING_SECONDS)
            left.append(killed_after(seconds, working, arguments, folder))
        last = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
        if last.returncode:
            raise SystemExit(f"{(folder / 'said.txt').read_text()[-3000:]}\n{last.stdout}\n{last.stderr}")
        save(
            "crashes",
            {"kills": kills, "seed": seed, "worst_seconds_until_no_process_is_left": max(left), **counted(folder)},
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
