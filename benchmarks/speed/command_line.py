"""How long the command line takes to answer when nothing is to be run.

    python -m benchmarks.speed.command_line

`--help`, and a config with faults, next to a Hydra application that does nothing, alternating in one run. Figures to
reach: 0.8 s and 1.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import save

PLAIN = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def application(config): ...
application()
"""


def seconds(*command: str, expect: int) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode != expect:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - started


def main(rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.py")
        plain.write_text(PLAIN)
        cases = {
            "plain_hydra_help": ((str(plain), "--help"), 0),
            "help": (("-m", "sweep", "--help"), 0),
            "one_fault": (("-m", "sweep", "train.max_steps=0"), 2),
            "many_faults": (("-m", "sweep", "variant=nope", "train.stps=3", "train.max_steps=0", "task.score=bleu"), 2),
            "fault_in_a_study": (("-m", "sweep", "-m", "experiment=quickstart", "train.max_steps=0"), 2),
            "analysis_help": (("-m", "analysis", "--help"), 0),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, (command, expect) in cases.items():
                times[name].append(seconds(*command, expect=expect))
    medians = {f"{name}_seconds": statistics.median(values) for name, values in times.items()}
    save("command_line", {**medians, "worst_seconds": max(max(values) for values in times.values()), "rounds": rounds})


if __name__ == "__main__":
    main()
