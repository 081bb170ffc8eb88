"""The quickstart after installation: base model, study, answer, and what the study spends outside its runs.

    python -m benchmarks.quickstart

In a fresh folder with a fresh cache. To reach on two cores: base at most 90 s, study at most 300 s, at most 10% of the
study's time outside load + train + eval.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import save


def timed(folder: Path, *command: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)
    return time.perf_counter() - started


def main() -> None:
    import pandas as pd

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PARETUNE_CACHE"] = str(folder / "cache")
        base = timed(folder, "sweep", "variant=fft", "train.max_steps=1", "task.data.n_validation=1")
        again = timed(folder, "sweep", "variant=fft", "train.max_steps=1", "task.data.n_validation=1")
        study = timed(folder, "sweep", "-m", "experiment=quickstart")
        nothing = timed(folder, "sweep", "-m", "experiment=quickstart")
        answer = timed(folder, "analysis", "study=quickstart")
        runs = pd.read_csv(folder / "reports/quickstart/runs.csv")
    inside = float(runs[[f"time/{phase}_seconds" for phase in ("load", "train", "eval")]].sum().sum())
    save(
        "quickstart",
        {
            "base_seconds": base - again,
            "study_seconds": study,
            "study_outside_runs_share": (study - inside) / study,
            "same_command_again_seconds": nothing,
            "answer_seconds": answer,
            "runs": len(runs),
        },
    )


if __name__ == "__main__":
    main()
