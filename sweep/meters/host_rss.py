"""Peak resident set of this process, from Linux's /proc. It counts libraries and the heap that was freed but not
returned, so it is a figure about the process and never stands in for tensor memory."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak_rss() -> None:
    """Start the high-water mark again where the kernel allows it; else it covers the process's whole life."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_rss_bytes() -> int | None:
    """The high-water mark in bytes, or None where there is no /proc."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
