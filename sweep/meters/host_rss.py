"""Peak resident set of this process, from Linux's /proc. It counts libraries, and heap that was freed and not returned.
So it is a figure of the process, and never replaces tensor memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak_rss() -> None:
    """Reset the peak if the kernel allows it; else it is the peak of the process's whole life."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes() -> int | None:
    """The peak in bytes, or None where there is no /proc."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)
