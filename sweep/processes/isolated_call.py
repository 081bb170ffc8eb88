"""One process per call, forked from a server that has done the imports.

In one process, the first run's peak memory, random state and failures would affect the second run. A new process takes
0.03 s from such a server, and several seconds where everything is imported again.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import connection, forkserver, spawn
from pathlib import Path
from typing import Any, NamedTuple

from sweep.processes import child_process
from sweep.processes.child_process import Call, Event
from sweep.processes.masked_log import MaskedLog

log = logging.getLogger(__name__)
_START = "sweep.processes.server_start"  # only the server imports it
_AHEAD_SECONDS = 0.03  # a call has begun its work by then: the process of the next call is forked after this time


class ChildFailed(Exception):
    """The function raised an error. `user_error` is its message if it was a UserError."""

    def __init__(self, summary: str, traceback_text: str, user_error: str | None = None):
        super().__init__(summary)
        self.traceback = traceback_text
        self.user_error = user_error


class ChildKilled(Exception):
    """The process ended without an answer. `host_oom` states whether the kernel's out-of-memory killer was active."""

    def __init__(self, exit_code: int, host_oom: bool):
        self.exit_code = exit_code
        self.host_oom = host_oom
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        super().__init__(f"the process ended {how}" + (" (the host ran out of memory)" if host_oom else ""))


class Stopped(Exception):
    """`ForkServer.stop` ended the process."""


class _Worker(NamedTuple):
    """A process that waits for its call, or works on it."""

    process: Any
    connection: connection.Connection
    output: connection.Connection  # what the process prints, if its call is logged


class ForkServer:
    """A server process that imports once, and forks a child for each call. It calls `initialise` ("module:function")
    with the arguments of `start`; a second call must do nothing (`functools.cache`).

    multiprocessing has one fork server per process, and the first ForkServer that starts decides what it imports. The
    children of another ForkServer initialise themselves: they start more slowly, and do the same.
    """

    _starting = threading.Lock()  # of the process's environment

    def __init__(self, initialise: str):
        self.method = "forkserver"  # or "spawn", where the server cannot be used
        self._initialise = initialise
        self._arguments: tuple[str, ...] = ()
        self._running: set[Any] = set()
        self._spares: list[_Worker] = []
        self._spare_count = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self, *arguments: str) -> None:
        """Start the server, without waiting for its imports. A server that runs already stays as it is."""
        self._arguments = arguments
        self._ensure_running()

    def _ensure_running(self) -> None:
        if self.method != "forkserver":
            return
        if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
            multiprocessing.set_start_method(self.method, force=True)  # joblib's workers set one that children lack
        multiprocessing.get_context("forkserver").set_forkserver_preload([_START])
        script = spawn.get_preparation_data("").get("init_main_from_path", "")
        with self._starting, handling(signal.SIGINT, signal.SIG_IGN):  # the server ignores Ctrl-C
            before = {name: os.environ.get(name) for name in child_process.PATH_VARIABLES}
            start = [before, script, self._initialise, self._arguments]
            os.environ[child_process.SERVER_VARIABLE] = json.dumps(start)
            # multiprocessing (3.11) does not give the server this process's sys.path, and puts the current folder
            # first, where a project may have packages of our names.
            os.environ |= {
                "PYTHONSAFEPATH": "1",
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            }
            forkserver.ensure_running()
            child_process.set_environment({**before, child_process.SERVER_VARIABLE: None})

    @contextmanager
    def spares(self, count: int) -> Iterator[None]:
        """While calls follow each other, keep at most `count` processes that wait for the next calls."""
        self._spare_count = count
        self._stopping.clear()
        try:
            yield
        finally:
            self._spare_count = 0
            with self._lock:
                spares, self._spares = self._spares, []
            for worker in spares:
                worker.process.kill()
                self._end(worker)

    def stop(self) -> None:
        """End every process that runs, and start no other: each of their calls raises `Stopped`."""
        self._stopping.set()
        with self._lock:
            for process in self._running:
                process.kill()

    def call(
        self,
        target: str,
        *args: Any,
        log_file: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_event: Callable[[Event], Any] = lambda event: None,
        on_answer: Callable[[Any], None] = lambda answer: None,
    ) -> Any:
        """Call a function in a process of its own, and return its value, or raise ChildFailed, ChildKilled or Stopped.
        Several threads may call at once. The child ends when its parent ends, for whatever reason.

        Args:
            target: the function, as "module:function". It is called as `function(*args, reporter)`.
            log_file: receives the output of the process, with secrets masked.
            env: environment variables, set before the child uses CUDA.
            on_event: called with each event of the child. If the event is a question, its value is sent to the child.
            on_answer: called with the function's value while the process still exits.
        """
        call = Call(target, args, log_file is not None, dict(env or {}))
        kills_before = host_oom_kills()
        while True:
            worker = self._next_worker()
            masked = MaskedLog(worker.output, log_file) if log_file else None
            try:
                with suppress(BrokenPipeError):  # the process has ended: its exit code states more than this error
                    worker.connection.send(call)
                answer = self._listen(worker, on_event)
                if answer is not None and answer[0] == "returned":
                    on_answer(answer[1])
            except BaseException:
                worker.process.kill()
                raise
            finally:
                self._end(worker)
                if masked is not None:
                    masked.close()
            if answer is None:
                if self._stopping.is_set():
                    raise Stopped
                exit_code = worker.process.exitcode or 0
                host_oom = exit_code == -signal.SIGKILL and host_oom_kills() > kills_before
                raise ChildKilled(exit_code, host_oom=host_oom)
            kind, value = answer
            if kind == "returned":
                return value
            if kind == "cuda touched":
                log.warning(
                    "a library that the fork server imported has called the CUDA driver, which does not survive a "
                    "fork: each run now starts by spawn, which takes some seconds"
                )
                self.method = "spawn"
                continue
            raise ChildFailed(*value)

    def _next_worker(self) -> _Worker:
        """A process that waits, or a new one."""
        with self._lock:
            while self._spares:
                worker = self._spares.pop()
                if worker.process.exitcode is None:
                    return worker
                self._running.discard(worker.process)
        return self._begin()

    def _begin(self) -> _Worker:
        self._ensure_running()
        context = multiprocessing.get_context(self.method)
        ours, theirs = context.Pipe(duplex=True)
        output, printed = context.Pipe(duplex=False)
        forked = context.get_start_method() == "forkserver"
        arguments = (theirs, printed, self._initialise, self._arguments, forked)
        process = context.Process(target=child_process.work, args=arguments, daemon=False)
        with self._lock:
            if self._stopping.is_set():
                raise Stopped
            try:
                process.start()
            except (EOFError, ConnectionError) as error:
                module = self._initialise.partition(":")[0]
                raise ChildFailed(
                    f"the fork server ended while it imported {module}; try: python -c 'import {module}'", ""
                ) from error
            self._running.add(process)
        theirs.close()
        printed.close()
        return _Worker(process, ours, output)

    def _listen(self, worker: _Worker, on_event: Callable[[Event], Any]) -> tuple[str, Any] | None:
        """Pass events on until the answer comes; None where the process ends without one."""
        process, receiver = worker.process, worker.connection
        if not connection.wait([receiver, process.sentinel], _AHEAD_SECONDS) and len(self._spares) < self._spare_count:
            with suppress(ChildFailed, OSError):  # the next call reports the error
                self._spares.append(self._begin())
        while True:
            ready = connection.wait([receiver, process.sentinel])
            if receiver not in ready:
                return None
            try:
                message = receiver.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                return None
            if not isinstance(message, Event):
                return message
            reply = on_event(message)
            if message.name in child_process.QUESTIONS:
                receiver.send(reply)

    def _end(self, worker: _Worker) -> None:
        """Wait for a process that has answered; kill one that has not, or that does not exit."""
        process = worker.process
        process.join(timeout=5)
        if process.exitcode is None:
            process.kill()
            process.join()
        worker.connection.close()
        with self._lock:
            self._running.discard(process)


@cache
def training_server() -> ForkServer:
    """The server of this process that has imported what training needs."""
    return ForkServer("sweep.launch.preload:initialise")


def call(target: str, *args: Any, **options: Any) -> Any:
    """`ForkServer.call` of the training server."""
    return training_server().call(target, *args, **options)


@contextmanager
def handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Replace a signal's handler for a while. Processes that start meanwhile inherit `SIG_IGN`. Outside the main thread
    this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def host_oom_kills() -> int:
    """The number of processes that the kernel's out-of-memory killer has killed: in this control group where there is
    one, else on the whole host."""
    for file in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
