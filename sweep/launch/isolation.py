"""One process per call, forked from a server that has done the imports.

In one process, a second run's peak memory, its random state and its failures would be the first one's too. A fresh
process costs 0.04 s from a warm fork server, and several seconds where everything is imported anew.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, NamedTuple

from sweep.errors import UserError

log = logging.getLogger(__name__)
HEAVY = "sweep.launch.preload"
QUESTIONS = frozenset({"reason_to_stop"})  # events that the child awaits an answer to
_method = "forkserver"
_preload = HEAVY
_running: set[Any] = set()
_lock = threading.Lock()
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


class Event(NamedTuple):
    """A message from the child: the name of a `Report` method, and its arguments."""

    name: str
    arguments: tuple[Any, ...]


def warm_up(preload: str = HEAVY) -> None:
    """Start the fork server, without waiting for its imports: of the module `preload`, what training needs unless told
    otherwise. A server that has imported another is replaced, once its children are gone."""
    global _preload
    if _method != "forkserver":
        return
    if preload != _preload and not _running:
        forkserver._forkserver._stop()
    _preload = preload
    multiprocessing.get_context("forkserver").set_forkserver_preload([_preload])
    with handling(signal.SIGINT, signal.SIG_IGN):  # Ctrl-C is not for the server
        forkserver.ensure_running()


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
) -> Any:
    """Call `target` ("module:function") in a process of its own, as `function(*args, report)`, and return its value.

    Its output goes to `log_file`. `env` is set before anything of CUDA is looked at. The child ends with its parent,
    however that dies. What `on_event` returns goes back to the child where the event is a question. Several threads may
    call at once.

    Raises:
        ChildFailed: the function raised.
        ChildKilled: the process ended without an answer.
        Stopped: `stop_all` was called.
    """
    global _method
    kills_before = host_oom_kills()
    while True:
        warm_up(_preload)
        context = multiprocessing.get_context(_method)
        receiver, sender = context.Pipe(duplex=True)
        process = context.Process(
            target=_child,
            args=(sender, _preload, target, args, str(log_file) if log_file else None, dict(env or {})),
            daemon=False,
        )
        try:
            _start(process)
        except (EOFError, ConnectionError) as error:
            raise ChildFailed(
                f"the fork server died while it imported {_preload}; try: python -c 'import {_preload}'", ""
            ) from error
        sender.close()
        try:
            answer = _listen(process, receiver, on_event)
        except BaseException:
            process.kill()
            raise
        finally:
            _end(process)
            receiver.close()
        if answer is None and _stopping.is_set():
            raise Stopped
        if answer is None:
            struck = process.exitcode == -signal.SIGKILL and host_oom_kills() > kills_before
            raise ChildKilled(process.exitcode or 0, host_oom=struck)
        kind, value = answer
        if kind == "returned":
            return value
        if kind == "cuda touched":
            log.warning("the fork server has touched CUDA: starting runs by spawn instead, some seconds each")
            _method = "spawn"
            continue
        raise ChildFailed(*value)


def _start(process: Any) -> None:
    with _lock:
        if _stopping.is_set():
            raise Stopped
        process.start()
        _running.add(process)


def _listen(process: Any, receiver: connection.Connection, on_event: Callable[[Event], Any]) -> tuple[str, Any] | None:
    """Pass events on until the answer comes, or the process is gone without one."""
    while True:
        ready = connection.wait([receiver, process.sentinel])
        if receiver not in ready:
            return None
        try:
            message = receiver.recv()
        except EOFError:
            process.join()
            return None
        if not isinstance(message, Event):
            return message
        reply = on_event(message)
        if message.name in QUESTIONS:
            receiver.send(reply)


def _end(process: Any) -> None:
    """Wait for a process that has answered; end one that has not, or that does not leave."""
    process.join(timeout=5)
    if process.exitcode is None:
        process.kill()
        process.join()
    with _lock:
        _running.discard(process)


class _Sender:
    """The child's `Report`: every call becomes an event in the parent."""

    def __init__(self, sender: connection.Connection):
        self._sender = sender

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._sender.send(Event("metrics", (step, values)))

    def progress(self, label: str, done: int, total: int) -> None:
        self._sender.send(Event("progress", (label, done, total)))

    def reason_to_stop(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        self._sender.send(Event("reason_to_stop", (step, score, error, memory_bytes)))
        return self._sender.recv()


def _child(
    sender: connection.Connection,
    preload: str,
    target: str,
    args: tuple[Any, ...],
    log_file: str | None,
    env: dict[str, str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent_soon()
    if log_file:
        _redirect_output(log_file)
    os.environ.update(env)
    preloaded = sys.modules.get(HEAVY)
    if _method == "forkserver" and preloaded is not None and not preloaded.cuda_is_untouched():
        sender.send(("cuda touched", None))
        return
    module, _, name = target.partition(":")
    try:
        importlib.import_module(preload)
        function = getattr(importlib.import_module(module), name)
        answer = ("returned", function(*args, _Sender(sender)))
    except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the parent
        traceback.print_exc()
        told = str(error) if isinstance(error, UserError) else None
        answer = ("raised", (f"{type(error).__name__}: {error}", traceback.format_exc(), told))
    sender.send(answer)


def _redirect_output(log_file: str) -> None:
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] %(message)s")
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def die_with_parent_soon() -> None:
    """Watch the parent from here on: a coordinator that is killed leaves no orphan on the device."""
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


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
