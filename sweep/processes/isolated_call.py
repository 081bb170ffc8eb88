"""One process per call, forked from a server that has done the imports.

In one process, a second run's peak memory, its random state and its failures would be the first one's too. A fresh
process costs 0.04 s from a warm fork server, and several seconds where everything is imported anew. Where calls follow
each other, the next one's process is forked while this one's works.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, forkserver, spawn
from pathlib import Path
from typing import Any, NamedTuple

from sweep.processes import child_process
from sweep.processes.child_process import Call, Event

log = logging.getLogger(__name__)
HEAVY = "sweep.launch.preload"
_AHEAD_SECONDS = 0.03  # into a call, when it has begun its work: the next one's process is forked no earlier
_method = "forkserver"
_preload = HEAVY
_running: set[Any] = set()
_spare: list[_Worker] = []
_keep_spares = 0
_lock = threading.Lock()
_starting = threading.Lock()
_stopping = threading.Event()


class ChildFailed(Exception):
    """The function raised. `traceback` is the child's, as text; `user_error` its message where it was a UserError."""

    def __init__(self, summary: str, traceback_text: str, user_error: str | None = None):
        super().__init__(summary)
        self.traceback = traceback_text
        self.user_error = user_error


class ChildKilled(Exception):
    """The process ended without an answer: by a signal, or by an exit of its own. `host_oom` says whether the
    kernel's out-of-memory killer has struck meanwhile."""

    def __init__(self, exit_code: int, host_oom: bool):
        self.exit_code = exit_code
        self.host_oom = host_oom
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        super().__init__(f"the process ended {how}" + (" (the host ran out of memory)" if host_oom else ""))


class Stopped(Exception):
    """`stop_all` ended the process."""


class _Worker(NamedTuple):
    """A process that waits for its call, or answers it."""

    process: Any
    connection: connection.Connection
    method: str  # by which it was started

    @property
    def waits(self) -> bool:
        return self.process.exitcode is None


def warm_up(preload: str = HEAVY, env: Mapping[str, str] | None = None) -> None:
    """Start the fork server, without waiting for its imports: of the module `preload`, what training needs unless told
    otherwise. A server that has imported another is replaced, once its children are gone. `env` is what a server that
    is started now finds in its environment.
    """
    global _preload
    if _method != "forkserver":
        return
    if preload != _preload and not _running:
        forkserver._forkserver._stop()
    _preload = preload
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method(_method, force=True)  # joblib's workers have one that our children lack
    multiprocessing.get_context("forkserver").set_forkserver_preload([child_process.__name__, _preload])
    names = {**(env or {}), child_process.SERVER: spawn.get_preparation_data("").get("init_main_from_path", "")}
    ignored = handling(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is not for the server
    with _starting, _environment(names), ignored:
        forkserver.ensure_running()


@contextmanager
def _environment(names: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(names)
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


@contextmanager
def handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """A signal's handler for a while, which processes started meanwhile inherit where it is to ignore. Elsewhere than
    in the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def following_calls(at_a_time: int) -> Iterator[None]:
    """While calls follow each other, so many at a time: processes wait for the next ones."""
    global _keep_spares
    _keep_spares = at_a_time
    _stopping.clear()
    try:
        yield
    finally:
        _keep_spares = 0
        with _lock:
            spare, _spare[:] = list(_spare), []
        for worker in spare:
            worker.process.kill()
            _end(worker)


def stop_all() -> None:
    """End every process that runs, and let no other begin: each of their calls raises `Stopped`."""
    _stopping.set()
    with _lock:
        for process in _running:
            process.kill()


def call(
    target: str,
    *args: Any,
    log_file: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_event: Callable[[Event], Any] = lambda event: None,
    on_answer: Callable[[Any], None] = lambda answer: None,
) -> Any:
    """Call `target` ("module:function") in a process of its own, as `function(*args, report)`, and return its value.

    Its output goes to `log_file`. `env` is set before anything of CUDA is looked at. The child ends with its parent,
    however that dies. What `on_event` returns goes back to the child where the event is a question. `on_answer` gets
    the value while the process is still leaving. Several threads may call at once.

    Raises:
        ChildFailed: the function raised.
        ChildKilled: the process ended without an answer.
        Stopped: `stop_all` was called.
    """
    global _method
    wanted = Call(target, args, str(log_file) if log_file else None, dict(env or {}))
    kills_before = host_oom_kills()
    while True:
        worker = _next_worker()
        try:
            _send(worker, wanted)
            answer = _listen(worker, on_event)
            if answer is not None and answer[0] == "returned":
                on_answer(answer[1])
        except BaseException:
            worker.process.kill()
            raise
        finally:
            _end(worker)
        if answer is None and _stopping.is_set():
            raise Stopped
        if answer is None:
            exit_code = worker.process.exitcode or 0
            struck = exit_code == -signal.SIGKILL and host_oom_kills() > kills_before
            raise ChildKilled(exit_code, host_oom=struck)
        kind, value = answer
        if kind == "returned":
            return value
        if kind == "cuda touched":
            log.warning("the fork server has touched CUDA: starting runs by spawn instead, some seconds each")
            _method = "spawn"
            continue
        raise ChildFailed(*value)


def _next_worker() -> _Worker:
    """One that waits, or a new one."""
    with _lock:
        while _spare:
            worker = _spare.pop()
            if worker.waits and worker.method == _method:
                return worker
            worker.process.kill()
            _running.discard(worker.process)
    return _begin()


def _fork_ahead() -> None:
    """A process for the next call. Where none can be started, that call will say so, and not this one."""
    if len(_spare) >= _keep_spares:
        return
    try:
        _spare.append(_begin())
    except (ChildFailed, OSError) as error:
        log.debug("no process could be started ahead: %s", error)


def _begin() -> _Worker:
    warm_up(_preload)
    method = _method
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=child_process.work, args=(theirs, _preload, method == "forkserver"), daemon=False)
    with _lock:
        if _stopping.is_set():
            raise Stopped
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            raise ChildFailed(
                f"the fork server died while it imported {_preload}; try: python -c 'import {_preload}'", ""
            ) from error
        _running.add(process)
    theirs.close()
    return _Worker(process, ours, method)


def _send(worker: _Worker, wanted: Call) -> None:
    try:
        worker.connection.send(wanted)
    except BrokenPipeError:  # its end tells more than this does
        log.debug("%s ended before it was told what to do", worker.process)


def _listen(worker: _Worker, on_event: Callable[[Event], Any]) -> tuple[str, Any] | None:
    """Pass events on until the answer comes, or the process is gone without one."""
    process, receiver = worker.process, worker.connection
    if not connection.wait([receiver, process.sentinel], _AHEAD_SECONDS):
        _fork_ahead()
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


def _end(worker: _Worker) -> None:
    """Wait for a process that has answered; end one that has not, or that does not leave."""
    process = worker.process
    process.join(timeout=5)
    if process.exitcode is None:
        process.kill()
        process.join()
    worker.connection.close()
    with _lock:
        _running.discard(process)


def host_oom_kills() -> int:
    """How many processes the kernel's out-of-memory killer has ended: in this control group where there is one, else on
    the whole host."""
    for file in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
