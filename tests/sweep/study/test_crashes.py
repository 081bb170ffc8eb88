"""A study whose coordinator is killed several times: every job is done, and no process is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from conftest import heed_interrupts

pytestmark = pytest.mark.slow

JOBS = 16
# Hydra allows a script without `if __name__ == "__main__"`.
SCRIPT = """
import os, time
import hydra

@hydra.main(version_base=None, config_path=None)
def job(cfg):
    for word in ("begin", "end"):
        with open(cfg.log, "a") as log:
            log.write(f"{word} {cfg.n} {os.getpid()}\\n")
        time.sleep(0.1 if word == "begin" else 0)
    return cfg.n

job()
"""


class Study:
    """A coordinator of a grid of jobs, two at a time, and the lines that its jobs have written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.storage = f"sqlite:///{folder}/optuna.db"
        self.log = folder / "log"
        (folder / "job.py").write_text(SCRIPT)

    def start(self) -> subprocess.Popen:
        arguments = [f"+n=range(0,{JOBS})", f"+log={self.log}", "hydra/sweeper=paretune", "hydra/launcher=paretune"]
        options = [f"hydra.sweeper.storage={self.storage}", "hydra.sweeper.study_name=x", "hydra.sweeper.n_jobs=2"]
        return subprocess.Popen(
            [sys.executable, "job.py", "-m", "hydra.sweep.dir=out", *arguments, *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=heed_interrupts,
        )

    def lines(self, word: str) -> list[list[str]]:
        text = self.log.read_text() if self.log.exists() else ""
        return [line.split()[1:] for line in text.splitlines() if line.startswith(word)]

    def left(self) -> list[int]:
        """The processes of jobs that still run."""
        return [int(pid) for _, pid in self.lines("begin") if is_running(int(pid))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.long
def test_every_job_is_done_even_if_the_coordinator_dies_often(tmp_path: Path):
    study, moments = Study(tmp_path), random.Random(3)
    ways = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]
    for way in ways:
        before = len(study.lines("begin"))
        coordinator = study.start()
        assert within(60, lambda before=before: len(study.lines("begin")) > before)
        time.sleep(moments.uniform(0, 0.3))
        coordinator.send_signal(way)
        coordinator.wait(timeout=10)
        assert within(10, lambda: study.left() == [])
        assert coordinator.returncode != 0
    assert study.start().wait(timeout=60) == 0
    done = Counter(n for n, _ in study.lines("end"))
    assert set(done) == {str(n) for n in range(JOBS)}
    # A job that ends at the moment of a death may not be recorded: two jobs at most, each time.
    assert sum(done.values()) <= JOBS + 2 * len(ways)
    assert len(study.lines("begin")) <= JOBS + 2 * len(ways)
    complete = [t.params["+n"] for t in optuna.load_study(study_name="x", storage=study.storage).trials if t.values]
    assert sorted(complete) == list(range(JOBS))
    folders = [path for path in (tmp_path / "out").iterdir() if (path / ".hydra").exists()]
    assert len(folders) == len(study.lines("begin"))  # no folder was used twice


def test_a_second_interrupt_ends_the_study_at_once(tmp_path: Path):
    study = Study(tmp_path)
    coordinator = study.start()
    assert within(60, lambda: study.lines("begin"))
    coordinator.send_signal(signal.SIGINT)
    time.sleep(0.02)
    os.kill(coordinator.pid, signal.SIGINT)
    coordinator.wait(timeout=5)
    assert within(5, lambda: study.left() == [])
