"""A unique name of a process, and whether the process still runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

# Without a heartbeat for this time, a coordinator of another machine counts as dead: 15 heartbeats.
SILENT_SECONDS = 300.0


def identity() -> str:
    """The unique name of this process: host, process id, and start time."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start_of(os.getpid()) or 0}"


def is_alive(name: str, beats: Mapping[str, float], now: float | None = None) -> bool:
    """Whether the coordinator of this name still runs. `beats` are the last heartbeats by name, in Unix seconds."""
    host, pid, started = name.rsplit("/", 2)
    if host == socket.gethostname():
        return _start_of(int(pid)) == int(started)
    beat = beats.get(name)
    return beat is not None and (now if now is not None else time.time()) - beat < SILENT_SECONDS


def _start_of(pid: int) -> int | None:
    """The start time of a process in clock ticks since the machine's start; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
