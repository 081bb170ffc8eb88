"""A unique name of a process, and whether the process still runs."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

# Without a heartbeat for this time, a coordinator of another machine counts as dead: 15 heartbeats.
SILENT_SECONDS = 300.0


def identity() -> str:
    """The unique name of this process: host, where its process ids are valid, process id, and start time."""
    return f"{socket.gethostname()}/{_place()}/{os.getpid()}/{_start_of(os.getpid()) or 0}"


def is_alive(name: str, silent_seconds: float | None) -> bool:
    """Whether the process of this name still runs: looked up, if it is one of this machine and of this container. Of
    another one, its last heartbeat decides: `silent_seconds` ago, None if there is none."""
    found = _looked_up(name)
    return found if found is not None else silent_seconds is not None and silent_seconds < SILENT_SECONDS


def is_gone(name: str) -> bool:
    """Whether the process of this name is one of this machine and of this container, and has ended."""
    return _looked_up(name) is False


def _looked_up(name: str) -> bool | None:
    """Whether a process of this machine and container runs; None for another one."""
    host, place, pid, started = ["", "", "", "", *name.rsplit("/", 3)][-4:]
    if (host, place) != (socket.gethostname(), _place()) or not pid.isdecimal():
        return None
    return str(_start_of(int(pid))) == started


@cache
def _place() -> str:
    """The boot of this machine and the namespace of this process's id: two containers may share a host name, and have
    processes of equal ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "-"


def _start_of(pid: int) -> int | None:
    """The start time of a process in clock ticks since the machine's start; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
