"""The outcome of a process that ended without a result."""

from __future__ import annotations

from pathlib import Path

from sweep.core.record import Outcome, Record
from sweep.meters.other_processes import out_of_memory_reason
from sweep.processes.isolated_call import ChildKilled
from sweep.runtime.out_of_memory import printed_out_of_memory


def outcome_of_crash(error: ChildKilled, log_file: Path, record: Record) -> tuple[Outcome, str]:
    """The outcome of a run, or of one of its ranks, and the reason."""
    if error.host_oom:
        return Outcome.OOM, str(error)
    printed = printed_out_of_memory(error.exit_code, log_file)
    if printed is None:
        return Outcome.KILLED, str(error)
    others = out_of_memory_reason(record.measurements)
    return (Outcome.FAILED, f"{others} ({printed})") if others else (Outcome.OOM, f"{printed} ({error})")
