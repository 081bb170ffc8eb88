"""Work on leased devices. A free device gets the next piece of work at once and never waits for a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

from sweep.launch.device_leases import Lease
from sweep.processes.isolated_call import ForkServer, training_server

Answered = Callable[[Any], None]


class Finished(NamedTuple):
    """A piece of work that has ended: the tag that it was submitted with, and its value or its exception."""

    tag: Any
    value: Any
    error: BaseException | None


class Pool:
    """Work in processes, with threads that wait for them. The answer of a process is known at once. Its lease is taken
    until the process has ended. An exception in the `with` block, Ctrl-C included, ends all processes."""

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
        """How many more pieces may be submitted now. Each starts when the process before it on its lease has ended."""
        return self._size - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, tag: Any, work: Callable[[Lease, Answered], Any]) -> None:
        """Start `work(lease, answered)` on the next free lease. Its value is what it returns, or the argument of an
        earlier call of `answered`."""
        answer: Future[Any] = Future()

        def leased() -> None:
            lease = self._leases.get()
            try:
                value = work(lease, answer.set_result)
                if not answer.done():
                    answer.set_result(value)
            except BaseException as error:  # noqa: BLE001  `wait` returns it
                if not answer.done():
                    answer.set_exception(error)
            finally:
                self._leases.put(lease)

        self._running[answer] = tag
        self._executor.submit(leased)

    def wait(self, timeout: float | None = None) -> list[Finished]:
        """What has ended since the last call. Waits for at least one, for `timeout` seconds at most."""
        done, _ = wait(self._running, timeout=timeout, return_when=FIRST_COMPLETED)
        return [
            Finished(self._running.pop(future), None if future.exception() else future.result(), future.exception())
            for future in done
        ]

    def __enter__(self) -> Pool:
        self._spares.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        try:
            if kind is not None:
                self._server.stop()
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)
            self._spares.__exit__(None, None, None)
        except KeyboardInterrupt:  # the second Ctrl-C: exit now. Rows have the outcome `killed` from their beginning
            print("\nInterrupted twice: ended at once. The same command continues.", file=sys.stderr, flush=True)
            os._exit(130)
