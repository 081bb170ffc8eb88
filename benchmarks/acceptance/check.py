"""One promise that the acceptance command checks on hardware, and what it needs."""

from __future__ import annotations

import math
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Skipped(Exception):
    """The check does not apply to this machine. The message is the reason."""


@dataclass(frozen=True)
class Bench:
    """The machine under test, and the folder for checkpoints and studies."""

    folder: Path
    device: str  # "cuda", or "cpu" in a dry run
    capacity_bytes: int  # of the first GPU; 0 on the CPU
    gpus: int

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    def need_gpu(self, what: str) -> None:
        if not self.is_gpu:
            raise Skipped(f"{what} needs a GPU")


@dataclass
class Findings:
    """What a check found: its figures, and the expectations that do not hold."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        """`sentence` states the expectation and the value."""
        if not holds:
            self.faults.append(sentence)


class Check(NamedTuple):
    name: str
    run: Callable[[Bench, Findings], None]


def run_check(check: Check, bench: Bench) -> dict[str, Any]:
    """Run one check, print its line, and return its row. An error in the check is a fault of the check."""
    found, started, result = Findings(), time.perf_counter(), "pass"
    try:
        check.run(bench, found)
    except Skipped as reason:
        result, found.figures["reason"] = "skip", str(reason)
    except Exception as error:  # noqa: BLE001  the other checks must still run
        found.faults.append(f"{type(error).__name__}: {error}")
        found.figures["traceback"] = traceback.format_exc()
    if found.faults:
        result = "FAIL"
    seconds = time.perf_counter() - started
    shown = {key: value for key, value in found.figures.items() if not isinstance(value, (dict, list))}
    shown.pop("traceback", None)
    print(f"{result:4}  {check.name:34} {seconds:6.1f} s  {_line(shown)}", flush=True)
    for fault in found.faults:
        print(f"      {fault}", flush=True)
    return {"result": result, "seconds": seconds, "faults": found.faults, **found.figures}


def _line(figures: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )


def command(bench: Bench, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command of the program, in the folder of the checks. Its output is kept in `commands.log` there."""
    import os

    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=bench.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        | dict(env or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    with (bench.folder / "commands.log").open("a") as log:
        log.write(f"\n$ python -m {' '.join(arguments)}\n{ended.stdout}{ended.stderr}")
    return ended


ROOT = Path(__file__).resolve().parents[2]


def is_positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
