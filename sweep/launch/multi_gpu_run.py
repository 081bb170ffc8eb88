"""One run over several devices: one process (rank) per device, joined by torch.distributed, and one Record of all. The
run's own process forks the ranks and uses no device. Each rank sees one device, so every meter measures as in a run on
one device.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from sweep import training_run
from sweep.core.artifacts import LOG_FILE
from sweep.core.record import Outcome, Record, is_memory
from sweep.core.reporter import Reporter, silent
from sweep.core.run_request import RunRequest
from sweep.launch.crash import outcome_of_crash
from sweep.processes import child_process, isolated_call
from sweep.runtime.visible_devices import VISIBLE, named

_LOG_SECONDS = 0.3
GRACE_SECONDS = 10.0  # time for the other ranks to notice a failed rank, before they are killed
SUM = "memory/sum_over_ranks_"
# If ranks end differently, the first of these outcomes is the cause: the other ranks lost their connection.
_CAUSES = (Outcome.OOM, Outcome.DIVERGED, Outcome.PRUNED, Outcome.FAILED, Outcome.KILLED)


def run(request: RunRequest, report: Reporter) -> Record:
    """Train on `train.devices_per_run` devices. Like `sweep.training_run.run_training`, it always returns a Record."""
    count = int(request.config["train"]["devices_per_run"])
    devices = _devices(count)
    if devices is None:
        reason = (
            f"train.devices_per_run = {count}, but this run has the GPUs {', '.join(named() or ())}; lease as many: "
            f"hydra.launcher.devices_per_run={count}"
        )
        return request.record.ended(Outcome.FAILED, reason)
    kills_before = isolated_call.host_oom_kills()
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank, device in enumerate(devices):
        ours, theirs = context.Pipe()
        arguments = (theirs, request, rank, _environment(rank, count, device))
        processes.append(context.Process(target=_rank, args=arguments))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    # This process keeps the ranks' store. It starts the store's threads after the forks, on a port that the store finds
    # itself: a port that was free a moment ago may be taken by another run.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    try:
        for pipe in pipes:
            with suppress(BrokenPipeError):  # the rank has ended, which is reported below
                pipe.send(store.port)
        records = _listen(processes, pipes, report)
    finally:
        for process in processes:
            process.kill()
            process.join()
    host_oom = isolated_call.host_oom_kills() > kills_before
    without_record = {r: _died(request, p, host_oom) for r, p in enumerate(processes) if r not in records}
    return joined({**records, **without_record})


def joined(by_rank: Mapping[int, Record]) -> Record:
    """The main rank's Record, with the largest memory of all ranks, the sum of their memory, and of their energy. Where
    a rank has no figure of energy, the run has none. If ranks failed, the outcome is that of the cause. `by_rank` is in
    the order in which the ranks ended."""
    records = list(by_rank.values())
    failed = [record for outcome in _CAUSES for record in records if record.outcome is outcome]
    main = failed[0] if failed else by_rank[0]
    measured, facts = dict(main.measurements), {**main.facts, "ranks": str(len(records))}
    for key in {key for record in records for key in record.measurements}:
        values = [record.measurements[key] for record in records if key in record.measurements]
        if is_memory(key):
            measured[key] = max(values)
            if key.startswith("memory/") and len(values) == len(records):
                measured[SUM + key.removeprefix("memory/")] = sum(values)
        elif key.endswith("_joules") and len(values) == len(records):
            measured[key] = sum(values)
        elif key.endswith("_joules"):
            measured.pop(key, None)
            rank, without = next((rank, one) for rank, one in by_rank.items() if key not in one.measurements)
            facts["energy_source"] = f"none of rank {rank}: {without.facts.get('energy_source', 'it has no result')}"
    return replace(main, measurements=measured, facts=facts)


def _rank(pipe: connection.Connection, request: RunRequest, rank: int, env: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child_process.die_with_parent()
    os.environ.update(env, MASTER_PORT=str(pipe.recv()))
    folder = Path(request.folder, f"rank{rank}") if rank else Path(request.folder)
    folder.mkdir(exist_ok=True)
    request = replace(request, folder=str(folder))
    record = training_run.run_training(request, child_process.Sender(pipe) if rank == 0 else silent)
    if rank and not any(folder.iterdir()):
        folder.rmdir()
    pipe.send(record)
    if torch.distributed.is_initialized() and record.outcome is Outcome.OK:
        torch.distributed.barrier()  # a rank that exits closes the connection of the others
        torch.distributed.destroy_process_group()


def _listen(processes: Sequence[Any], pipes: Sequence[connection.Connection], report: Reporter) -> dict[int, Record]:
    """Pass the main rank's events on, until every rank has sent its Record or ended. In the order of their ends."""
    records: dict[int, Record] = {}
    waiting = dict(enumerate(pipes))
    deadline: float | None = None
    while waiting:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = connection.wait(list(waiting.values()), left)
        if not ready:
            break
        for rank, pipe in [(rank, pipe) for rank, pipe in waiting.items() if pipe in ready]:
            message = None
            with suppress(EOFError):
                message = pipe.recv()
            if isinstance(message, child_process.Event):
                reply = getattr(report, message.name)(*message.arguments)
                if message.name in child_process.QUESTIONS:
                    pipe.send(reply)
                continue
            del waiting[rank]
            if message is not None:
                records[rank] = message
            if message is None or message.outcome is not Outcome.OK:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
    if deadline is None:
        for process in processes:
            process.join(GRACE_SECONDS)
    return records


def _died(request: RunRequest, process: Any, host_oom: bool) -> Record:
    code = process.exitcode or 0
    if code > 0:
        time.sleep(_LOG_SECONDS)  # another process writes the log that is read now
    death = isolated_call.ChildKilled(code, host_oom=host_oom and code == -signal.SIGKILL)
    outcome, reason = outcome_of_crash(death, Path(request.folder, LOG_FILE), request.record)
    return request.record.ended(outcome, f"of a rank: {reason}")


def _devices(count: int) -> list[str] | None:
    """One device per rank: the leased GPUs in their order. None if there are too few. Without a GPU, the ranks share
    the CPU. PyTorch is not asked: it may call the CUDA driver, which does not survive the fork of the ranks."""
    leased = named() or []
    if not leased:
        return [""] * count
    return leased[:count] if len(leased) >= count else None


def _environment(rank: int, count: int, device: str) -> dict[str, str]:
    """The environment of a rank. LOCAL_RANK is 0, since the rank sees one device. TORCHELASTIC_USE_AGENT_STORE states
    that no rank keeps the store."""
    ours = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", VISIBLE: device}
    return {**ours, "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
