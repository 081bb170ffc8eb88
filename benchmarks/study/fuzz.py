"""Random command lines and damaged CSV files: how many are refused in words, accepted, or end in a traceback?

    python -m benchmarks.study.fuzz [OVERRIDES] [FILES] [SEED]      200 and 200 take some minutes on two cores

Override lists go through the check before a study (`sweep.cli.validation`), CSV files through a whole report. A case is
refused if it ends in a UserError. Every other exception is a fault of the program, and is printed with its case.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from analysis import pipeline
from benchmarks.results import save
from sweep.cli import validation
from sweep.core.errors import UserError
from sweep.core.paths import CONF

KEYS = """
seed variant variant.r variant.learning_rate variant.name variant.target_modules train.max_steps train.epochs
train.micro_batch_size train.weight_decay train.precision train.devices_per_run train.warmup_ratio task.score
task.data task.data.n_train task.metrics model model.path model.dtype tracking.uri tracking.artifacts
tracking.experiment study.name study.score_threshold study.learning_rate_multiplier study.max_attempts
study.memory_budget_gib hydra.sweep.dir hydra.run.dir hydra.sweeper.n_trials hydra.sweeper.n_jobs
hydra.sweeper.max_failure_rate hydra.sweeper.direction hydra.sweeper.params hydra.sweeper.storage
hydra.sweeper.sampler hydra/sweeper/sampler hydra.launcher.slots hydra.launcher.devices
hydra.launcher.devices_per_run meters nothing x.y
"""
VALUES = """
0 1 -1 8 2.5 1e-300 1e308 1e400 nan inf -inf true null ??? [] {} [1,2] {a:1} a,b 1,2 range(1,5) range(0,3,0)
range(5,1) range(0,1000000000) range(0,1,1e-12) interval(0,1) interval(1,0) interval(nan,1) choice(1,2)
shuffle(1,2) sort(3,1) glob(*) fft lora_r8 nope 'x' "" ${seed} ${nope} ${oc.env:HOME} ${oc.decode:x} = ' ( [1
../../etc /etc/passwd os.system sqlite:///x.db postgresql://u:p@127.0.0.1:9/x http://127.0.0.1:9 file:///tmp
9223372036854775808 -5 99999999999999999999
"""
CELLS = """
nan inf -inf 1e308 -1e308 -1 0 1e30 1,5 0.9 91 91% 4GiB abc =1+1 @x +x -x ok oom failed running maximize
minimize '' " ; \t NULL None true 0x10 ١٢ 1_000
"""
GOOD = [
    "setting,variant,seed,score,peak_memory_bytes,train_seconds,n_examples,outcome",
    *(f"{name},{name},{seed},{score},{memory},60,200,ok"
      for name, score, memory in (("fft", 0.9, 4e9), ("lora", 0.89, 2e9), ("qlora", 0.5, 1e9)) for seed in (0, 1, 2)),
]  # fmt: skip
OPTIONS = {
    "study": None, "compare": None, "threshold": 0.99, "margin": None, "direction": None, "allow_different": [],
    "memory_metric": "peak_memory_bytes", "cluster": None, "pdf": False, "tracking": {},
}  # fmt: skip


def overrides(draw: random.Random) -> tuple[str, Callable[[], object]]:
    """Some random overrides, and their check."""
    given = [
        f"{draw.choice(['', '', '', '+', '++', '~'])}{draw.choice(KEYS.split())}={draw.choice(VALUES.split())}"
        for _ in range(draw.randint(1, 4))
    ]
    args = argparse.Namespace(
        overrides=given, multirun=draw.random() < 0.5, config_dir=None, config_name=None, config_path=None
    )
    return repr(given), lambda: validation.check(CONF, args, "config", validation.validate)


def csv_file(draw: random.Random) -> tuple[str, Callable[[], object]]:
    """A CSV file with some damage, and its report."""
    rows = [line.split(",") for line in GOOD]
    for _ in range(draw.randint(1, 4)):
        row = draw.choice(rows)
        kind = draw.random()
        if kind < 0.7:
            row[draw.randrange(len(row))] = draw.choice(CELLS.split())
        elif kind < 0.8 and len(row) > 1:
            del row[draw.randrange(len(row))]
        elif kind < 0.9:
            rows.append(list(row))
        elif len(rows) > 1:
            rows.remove(row)
    text = "\n".join(",".join(row) for row in rows)
    Path("results.csv").write_text(text)
    return text, lambda: pipeline.answer({**OPTIONS, "source": "results.csv", "out": "report"})


def count(cases: int, make: Callable[[random.Random], tuple[str, Callable[[], object]]], seed: int) -> dict[str, float]:
    """How the cases end, and the seconds of the slowest."""
    ends: Counter[str] = Counter(refused=0, accepted=0, tracebacks=0)
    slowest = 0.0
    for number in range(cases):
        case, attempt = make(random.Random(f"{seed} {number}"))
        begun = time.monotonic()
        try:
            attempt()
            ends["accepted"] += 1
        except UserError:
            ends["refused"] += 1
        except Exception:  # noqa: BLE001  whatever it is, it is counted
            ends["tracebacks"] += 1
            print(f"case {number}: {case}\n{traceback.format_exc()}", file=sys.stderr)
        if time.monotonic() - begun > slowest:
            slowest = time.monotonic() - begun
    return {**ends, "slowest_seconds": slowest}


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    lists, files, seed = (*given, *(200, 200, 0)[len(given) :])
    figures: dict[str, float] = {"seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            for name, cases, make in (("overrides", lists, overrides), ("csv_files", files, csv_file)):
                found = count(cases, make, seed)
                figures |= {f"{name}/cases": cases, **{f"{name}/{key}": value for key, value in found.items()}}
        finally:
            os.chdir(before)
    save("fuzz", figures)


if __name__ == "__main__":
    main()
