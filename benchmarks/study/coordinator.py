"""What the coordinator costs, and what asking one job at a time saves.

    python -m benchmarks.study.coordinator             ours alone: busy slots, time to ask, memory over 1,000 trials
    python -m benchmarks.study.coordinator PYTHON      and beside hydra-optuna-sweeper under joblib

PYTHON is the interpreter of a virtual environment with `hydra-optuna-sweeper==1.4.0rc3 hydra-joblib-launcher` (pip
install --pre): its stable release needs an Optuna too old to be installed beside ours.
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

from benchmarks.results import save

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
    """(wall seconds of the whole command, share of the slots' time that was busy from the first job's beginning to the
    last one's end)."""
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


def asking(trials: int) -> dict[str, Any]:
    """Seconds per proposal and growth of this process over a study of TPE on SQLite, our own loop around it."""
    import sys as _sys

    _sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import optuna
    from test_proposals import Toy, ended, space

    from sweep.study.scheduler import Scheduler
    from sweep.study.trial_store import TrialStore

    found = space("x=interval(0,1)", "y=interval(0,3)", "z=choice(a,b,c)")
    app = Toy(seeds=[0])
    with tempfile.TemporaryDirectory() as folder:
        trials_of = TrialStore(
            storage=f"sqlite:///{folder}/optuna.db",
            name="toy",
            directions=app.directions,
            metric_names=None,
            worst=app.worst,
            space={key: dimension.distribution for key, dimension in found.dimensions.items()},
            sampler=optuna.samplers.TPESampler(seed=0),
        )
        scheduler = Scheduler(trials_of, app, found, None, trials, None)
        seconds, resident = [], []
        for _ in range(trials):
            begin = time.perf_counter()
            replicate = scheduler.next_run()
            seconds.append(time.perf_counter() - begin)
            scheduler.record_result(replicate, ended())
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
    swept = [sweep(sys.executable, "paretune", 200, 0.1, 1.0) for _ in range(7)]  # the share moves with the machine
    walls, shares = (sorted(column) for column in zip(*swept, strict=True))
    figures["busy_share_200_trials_of_0.1s_4_slots"] = shares[3]
    figures["busy_share_lowest_and_highest_of_7"] = [shares[0], shares[-1]]
    figures["wall_seconds_200_trials"] = walls[3]
    if len(sys.argv) > 1:
        ours, theirs = [], []
        for _ in range(3):  # in turn, so that a slow phase of the machine meets both
            theirs.append(sweep(sys.argv[1], "joblib", 48, 0.5, 6.0)[0])
            ours.append(sweep(sys.executable, "paretune", 48, 0.5, 6.0)[0])
        figures["uneven_wall_seconds_ours"] = sorted(ours)[1]
        figures["uneven_wall_seconds_hydra_optuna_sweeper_joblib"] = sorted(theirs)[1]
        figures["uneven_wall_ratio"] = sorted(ours)[1] / sorted(theirs)[1]
    figures |= asking(1000)
    save("coordinator", figures)


if __name__ == "__main__":
    main()
