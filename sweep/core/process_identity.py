"""The name of a process that no other process has, and whether it still runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

# A coordinator of another machine counts as dead after this long without a beat: ten beats, and clocks that differ.
SILENT_SECONDS = 300.0


def identity() -> str:
    """This process, as no other is called: host, process, and the moment of its start."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start_of(os.getpid()) or 0}"


def is_alive(name: str, beats: Mapping[str, float], now: float | None = None) -> bool:
    """Whether the coordinator of this name still runs. `beats` are the last heartbeats, in Unix seconds."""
    host, pid, started = name.rsplit("/", 2)
    if host == socket.gethostname():
        return _start_of(int(pid)) == int(started)
    beat = beats.get(name)
    return beat is not None and (now if now is not None else time.time()) - beat < SILENT_SECONDS


def _start_of(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None where there is none of this number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
