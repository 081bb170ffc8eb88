"""Measured figures, kept with date, machine and versions."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

from sweep.core.provenance import commit, versions


def save(name: str, figures: dict[str, Any], shown: bool = True) -> None:
    """Keep the figures in `benchmarks/results/NAME.json`, and print them unless they were shown before."""
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}
    content = {
        "date": date.today().isoformat(),
        "machine": {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.system()},
        "versions": versions(),
        "commit": commit(),
        "figures": rounded,
    }
    Path(__file__).with_name(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if shown:
        print(json.dumps(rounded, indent=1))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
