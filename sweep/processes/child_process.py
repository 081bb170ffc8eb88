"""The child's half of a call: what goes on in the process. See isolation.py for the parent's.

The fork server imports this module before anything else.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import connection
from typing import Any, NamedTuple

from sweep.core.errors import UserError

QUESTIONS = frozenset({"should_prune"})  # events that the child awaits an answer to
SERVER = "PARETUNE_SERVER"  # in the fork server's environment: the script that was started, or nothing
_SIGNAL_AT_PARENTS_DEATH = 1  # prctl's PR_SET_PDEATHSIG


class Event(NamedTuple):
    """A message from the child: the name of a `Reporter` method, and its arguments."""

    name: str
    arguments: tuple[Any, ...]


class Call(NamedTuple):
    """What a process is to do: a function by its name, and what it is called with."""

    target: str
    args: tuple[Any, ...]
    log_file: str | None
    env: Mapping[str, str]


class _Sender:
    """The child's `Reporter`: every call becomes an event in the parent."""

    def __init__(self, sender: connection.Connection):
        self._sender = sender

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._sender.send(Event("metrics", (step, values)))

    def progress(self, label: str, done: int, total: int) -> None:
        self._sender.send(Event("progress", (label, done, total)))

    def should_prune(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        self._sender.send(Event("should_prune", (step, score, error, memory_bytes)))
        return self._sender.recv()


def work(connected: connection.Connection, preload: str, forked: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent_soon()
    gc.freeze()  # what the server has imported is not looked through again
    wanted: Call = connected.recv()
    if wanted.log_file:
        _redirect_output(wanted.log_file)
    os.environ.update(wanted.env)
    if forked and not cuda_is_untouched():
        connected.send(("cuda touched", None))
        return
    module, _, name = wanted.target.partition(":")
    try:
        importlib.import_module(preload)
        function = getattr(importlib.import_module(module), name)
        answer = ("returned", function(*wanted.args, _Sender(connected)))
    except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the parent
        traceback.print_exc()
        told = str(error) if isinstance(error, UserError) else None
        answer = ("raised", (f"{type(error).__name__}: {error}", traceback.format_exc(), told))
    connected.send(answer)


def cuda_is_untouched() -> bool:
    """Whether a child may still choose its device and make a CUDA context of its own.

    Asked in a child: PyTorch marks the child of a process that had a context as a bad fork.
    """
    torch = sys.modules.get("torch")
    return torch is None or not (torch.cuda._initialized or torch.cuda._is_in_bad_fork())


def _redirect_output(log_file: str) -> None:
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] %(message)s")
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # not masked yet
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


def _be_the_server(script: str) -> None:
    """In the fork server, which imports this module first.

    It dies with the coordinator: of itself it would notice only after its imports. And it says that it has the script
    that was started, or its children would import it, which may not be meant to be imported.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if script:
        sys.modules["__main__"].__file__ = script


if SERVER in os.environ:
    _be_the_server(os.environ.pop(SERVER))
