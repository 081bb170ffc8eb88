"""How long an isolated run takes to start: from the parent's call to the child's first line with all imports done.

    python -m benchmarks.study.start_of_run

A warm fork server against a spawned process that does the same imports, alternating in one run: machines are noisy.
Figures to reach: at most 0.3 s warm, and at least 25 times faster than spawn.
"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

from benchmarks.results import save
from sweep.processes import isolated_call


def now(report: object) -> float:
    """The clock of the system, which parent and child share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _spawned(sender: Connection) -> None:
    importlib.import_module("sweep.launch.preload").initialise()
    sender.send(time.clock_gettime(time.CLOCK_MONOTONIC))


def by_fork_server() -> float:
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    return isolated_call.call("benchmarks.study.start_of_run:now") - started


def by_spawn() -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    process = context.Process(target=_spawned, args=(sender,))
    process.start()
    arrived = receiver.recv()
    process.join()
    return arrived - started


def main(rounds: int = 5) -> None:
    first = by_fork_server()  # includes the server's own imports
    fork_server, spawn = [], []
    for _ in range(rounds):
        fork_server.append(by_fork_server())
        spawn.append(by_spawn())
    warm, cold = statistics.median(fork_server), statistics.median(spawn)
    save(
        "start_of_run",
        {
            "fork_server_first_seconds": first,
            "fork_server_warm_seconds": warm,
            "fork_server_warm_worst_seconds": max(fork_server),
            "spawn_seconds": cold,
            "ratio": cold / warm,
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    main()
