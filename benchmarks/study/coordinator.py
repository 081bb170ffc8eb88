"""The cost of the coordinator, and the time that is saved by launching one job at a time.

    python -m benchmarks.study.coordinator             paretune alone: busy slots, seconds per proposal, memory
    python -m benchmarks.study.coordinator PYTHON      and a comparison with hydra-optuna-sweeper under joblib

PYTHON is the interpreter of a virtual environment with `hydra-optuna-sweeper==1.4.0rc3 hydra-joblib-launcher` (pip
install --pre). The stable release of hydra-optuna-sweeper needs an older Optuna than paretune.

The stored results were measured while paretune replaced four functions of Hydra and OmegaConf. It does so no longer:
Hydra composes each job's config in 40 ms or more, so that jobs of 0.1 s keep the slots less busy than in the results.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from benchmarks.results import save
from sweep.study.book import Book
from sweep.study.objectives.function import FunctionObjective
from sweep.study.scheduler import Scheduler
from sweep.study.search.dimension import Dimension
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Space
from sweep.study.trial_store import TrialStore

SLOTS = 4
SCRIPT = """
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig


@hydra.main(version_base=None, config_path=".", config_name="config")
def objective(cfg):
    begin = time.time()
    seconds = cfg.seconds if cfg.n % 4 else cfg.seconds * cfg.uneven
    time.sleep(seconds)
    Path(cfg.spans_to, str(HydraConfig.get().job.num)).write_text(f"{begin} {time.time()}")
    return (cfg.x - 0.3) ** 2


if __name__ == "__main__":
    objective()
"""
CONFIG = """
defaults:
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: random
  - override hydra/launcher: {launcher}
hydra:
  sweeper:
    direction: minimize
    study_name: speed
    storage: null
    n_trials: {trials}
    n_jobs: {slots}
    sampler: {{seed: 1}}
    params:
      n: range(0,{trials})
      x: interval(0,1)
  {launcher_options}
x: 0.0
n: 0
seconds: {seconds}
uneven: {uneven}
spans_to: .
"""


def sweep(python: str, launcher: str, trials: int, seconds: float, uneven: float) -> tuple[float, float]:
    """Run the script above once.

    Args:
        python: The interpreter.
        launcher: Hydra's launcher, paretune or joblib.
        trials: The number of jobs.
        seconds: The duration of a job.
        uneven: Every fourth job takes this many times longer.

    Returns:
        Wall seconds of the whole command, and the fraction of the slots' time that was busy between the start of the
        first job and the end of the last one.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "objective.py").write_text(textwrap.dedent(SCRIPT))
        options = f"launcher: {{n_jobs: {SLOTS}}}" if launcher == "joblib" else ""
        config = CONFIG.format(
            launcher=launcher, trials=trials, slots=SLOTS, seconds=seconds, uneven=uneven, launcher_options=options
        )
        (folder / "config.yaml").write_text(config)
        (folder / "spans").mkdir()
        begin = time.perf_counter()
        command = [python, "objective.py", "-m", f"spans_to={folder}/spans", f"hydra.sweep.dir={folder}/out"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - begin
        spans = [tuple(map(float, file.read_text().split())) for file in (folder / "spans").iterdir()]
        if done.returncode or not spans:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        busy = sum(end - start for start, end in spans)
        whole = max(end for _, end in spans) - min(start for start, _ in spans)
        return wall, busy / (whole * SLOTS)


def proposals(trials: int) -> dict[str, Any]:
    """Seconds per proposal, and the growth of this process, over a study of `trials` trials with TPE on SQLite. Each
    job is one line of arithmetic."""
    dimensions = {
        "x": Dimension.between("x", 0.0, 1.0),
        "y": Dimension.between("y", 0.0, 3.0),
        "z": Dimension.described("z", {"type": "categorical", "choices": ["a", "b", "c"]}),
    }
    found = Enumeration(Space(fixed={}, dimensions=dimensions, seeds=None), None)
    objective = FunctionObjective.from_space(
        lambda overrides: OmegaConf.create(), found, direction=["maximize", "minimize"], study_name="toy"
    )
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/optuna.db"
        book = Book(storage)
        store = TrialStore(
            storage=storage,
            name=objective.study_name,
            directions=objective.directions,
            metric_names=None,
            worst=objective.worst,
            space=found.space.distributions,
            sampler=optuna.samplers.TPESampler(seed=0),
        )
        session = objective.open(book, store)
        scheduler = Scheduler(book, store, session, found, trials)
        seconds, resident = [], []
        for _ in range(trials):
            begin = time.perf_counter()
            replicate = scheduler.next_run()
            seconds.append(time.perf_counter() - begin)
            returned = JobReturn(status=JobStatus.COMPLETED)
            returned.return_value = (replicate.params["x"], replicate.params["y"])
            scheduler.record_result(replicate, session.entry(replicate, returned))
            resident.append(_resident_bytes())
    last = sorted(seconds[-50:])
    return {
        "ask_seconds_at_100": sorted(seconds[75:125])[25],
        f"ask_seconds_at_{trials}": last[len(last) // 2],
        f"ask_seconds_at_{trials}_worst": last[-1],
        "resident_mib_at_100": resident[99] / 2**20,
        f"resident_mib_at_{trials}": resident[-1] / 2**20,
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    figures: dict[str, Any] = {}
    swept = [sweep(sys.executable, "paretune", 200, 0.1, 1.0) for _ in range(7)]  # the fraction varies with the machine
    walls, shares = (sorted(column) for column in zip(*swept, strict=True))
    figures["busy_share_200_trials_of_0.1s_4_slots"] = shares[3]
    figures["busy_share_lowest_and_highest_of_7"] = [shares[0], shares[-1]]
    figures["wall_seconds_200_trials"] = walls[3]
    if len(sys.argv) > 1:
        ours, theirs = [], []
        for _ in range(3):  # alternating, so that a slow phase of the machine affects both
            theirs.append(sweep(sys.argv[1], "joblib", 48, 0.5, 6.0)[0])
            ours.append(sweep(sys.executable, "paretune", 48, 0.5, 6.0)[0])
        figures["uneven_wall_seconds_ours"] = sorted(ours)[1]
        figures["uneven_wall_seconds_hydra_optuna_sweeper_joblib"] = sorted(theirs)[1]
        figures["uneven_wall_ratio"] = sorted(ours)[1] / sorted(theirs)[1]
    figures |= proposals(1000)
    save("coordinator", figures)


if __name__ == "__main__":
    main()
