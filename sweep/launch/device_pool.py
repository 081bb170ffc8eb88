"""Work on leased devices. A free device gets the next piece of work at once and never waits for a batch."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from sweep.core.errors import UserError
from sweep.launch import device_locks
from sweep.launch.device_leases import Lease
from sweep.processes.isolated_call import ForkServer, Stopped, training_server
from sweep.runtime import gpus

log = logging.getLogger(__name__)

Answered = Callable[[Any], None]


class Finished(NamedTuple):
    """A piece of work that has ended: the tag that it was submitted with, and its value or its exception."""

    tag: Any
    value: Any
    error: BaseException | None


class Pool:
    """Work in processes, with threads that wait for them. The answer of a process is known at once. Its lease is taken
    until the process has ended, and its GPUs are locked against the runs of other programs. An exception in the `with`
    block, Ctrl-C included, ends all processes."""

    def __init__(self, leases: Sequence[Lease], server: ForkServer | None = None):
        self._leases: SimpleQueue[Lease] = SimpleQueue()
        for lease in leases:
            self._leases.put(lease)
        self._size = len(leases)
        self._executor = ThreadPoolExecutor(max_workers=2 * len(leases), thread_name_prefix="run")
        self._running: dict[Future[Any], Any] = {}
        self._server = server or training_server()
        self._spares = self._server.spares(len(leases))
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._has_waited = False

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
            try:
                lease, held = self._take()
                try:
                    with held:
                        value = work(lease, answer.set_result)
                finally:
                    self._leases.put(lease)
                if not answer.done():
                    answer.set_result(value)
            except BaseException as error:  # noqa: BLE001  `wait` returns it
                if not answer.done():
                    answer.set_exception(error)

        self._running[answer] = tag
        self._executor.submit(leased)

    def _take(self) -> tuple[Lease, ExitStack]:
        """A lease whose GPUs no other program uses, and their locks. Waits for one. Lost GPUs are given up."""
        while self._size:
            try:
                lease = self._leases.get(timeout=device_locks.POLL_SECONDS)
            except Empty:
                continue  # and see whether a lease is left
            if lease.gpus and gpus.lost(lease.gpus):
                self._give_up(lease)
                continue
            try:
                held = device_locks.acquire(lease)
            except BaseException:
                self._leases.put(lease)
                raise
            if held is not None:
                return lease, held
            self._leases.put(lease)
            if not self._has_waited:
                self._has_waited = True
                device_locks.say_that_it_waits(lease)
            if self._stopping.wait(device_locks.POLL_SECONDS / max(1, self._size)):
                raise Stopped
        raise UserError("all GPUs of this study are lost (nvidia-smi shows them); the same command continues the study")

    def _give_up(self, lease: Lease) -> None:
        with self._counting:
            self._size -= 1
        log.warning("%s is lost: no further run starts on it", lease)

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
                self._stopping.set()
                self._server.stop()
            self._executor.shutdown(wait=True, cancel_futures=kind is not None)
            self._spares.__exit__(None, None, None)
        except KeyboardInterrupt:  # the second Ctrl-C: exit now. Rows have the outcome `killed` from their beginning
            print("\nInterrupted twice: ended at once. The same command continues.", file=sys.stderr, flush=True)
            os._exit(130)
