"""Work on leased devices: a free one gets the next piece at once, nobody waits for the slowest of a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple

from sweep.launch.device_leases import Lease
from sweep.processes.isolated_call import ForkServer, training_server

Answered = Callable[[Any], None]


class Finished(NamedTuple):
    """A piece of work that has ended: what it was submitted as, and what it returned or raised."""

    tag: Any
    value: Any
    error: BaseException | None


class Pool:
    """A thread per lease. The work itself goes on in processes, which the threads wait for. What a process has answered
    is known at once, while its lease is taken until it has left.

    Leaving the `with` block by an exception (Ctrl-C too) ends all processes; a second Ctrl-C leaves without waiting for
    their rows.
    """

    def __init__(self, leases: Sequence[Lease], server: ForkServer | None = None):
        self._leases: SimpleQueue[Lease] = SimpleQueue()
        for lease in leases:
            self._leases.put(lease)
        self._size = len(leases)
        self._executor = ThreadPoolExecutor(max_workers=2 * len(leases), thread_name_prefix="run")
        self._running: dict[Future[Any], Any] = {}
        self._server = server or training_server()
        self._spares = self._server.spares(len(leases))

    @property
    def free(self) -> int:
        """How many more pieces may be submitted now: each starts once the process before it on its lease has left."""
        return self._size - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, tag: Any, work: Callable[[Lease, Answered], Any]) -> None:
        """Start `work(lease, answered)` on the next free lease. Its value is what it returns, or what it has called
        `answered` with before."""
        answer: Future[Any] = Future()

        def leased() -> None:
            lease = self._leases.get()
            try:
                value = work(lease, answer.set_result)
                if not answer.done():
                    answer.set_result(value)
            except BaseException as error:  # noqa: BLE001  it belongs to whoever waits
                if not answer.done():
                    answer.set_exception(error)
            finally:
                self._leases.put(lease)

        self._running[answer] = tag
        self._executor.submit(leased)

    def wait(self, timeout: float | None = None) -> list[Finished]:
        """What has ended since the last call; waits for one at least, `timeout` seconds at most."""
        done, _ = wait(self._running, timeout=timeout, return_when=FIRST_COMPLETED)
        finished = []
        for future in done:
            tag = self._running.pop(future)
            error = future.exception()
            finished.append(Finished(tag, None if error else future.result(), error))
        return finished

    def __enter__(self) -> Pool:
        self._spares.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._server.stop()
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)
            self._spares.__exit__(None, None, None)
        except KeyboardInterrupt:  # asked twice: at once. Rows say `killed` from their beginning
            print("\nInterrupted twice: ended at once. The same command goes on.", file=sys.stderr, flush=True)
            os._exit(130)
