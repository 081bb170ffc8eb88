"""The child's half of a call: what happens in the process. isolated_call.py has the parent's half."""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from typing import Any, NamedTuple

from sweep.core.errors import UserError, described

PATH_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH")
SERVER_VARIABLE = "PARETUNE_SERVER"  # the environment variable with the first call in the fork server
QUESTIONS = frozenset({"should_prune"})  # the child waits for the answer to these events


class Event(NamedTuple):
    """A message from the child: the name of a `Reporter` method, and its arguments."""

    name: str
    arguments: tuple[Any, ...]


class Call(NamedTuple):
    """The function that a process calls, as "module:function", and its arguments."""

    target: str
    args: tuple[Any, ...]
    logs: bool  # whether the parent reads the output
    env: Mapping[str, str]


class Sender:
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


def set_environment(variables: Mapping[str, str | None]) -> None:
    """Set environment variables, or remove those that are None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def work(
    connected: connection.Connection,
    output: connection.Connection,
    initialise: str,
    arguments: Sequence[str],
    forked: bool,
) -> None:
    """Wait for a `Call` on the connection to the parent, make it, and send the answer as (kind, value). `output` is a
    pipe for all that the process prints, which the parent reads if the call says so. `initialise` is called first; it
    is fast if the fork server has called it. If a fork server started this process (`forked`), CUDA must not have been
    used there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    gc.freeze()  # the garbage collector skips what the server has imported
    call: Call = connected.recv()
    if call.logs:
        _redirect_output(output)
    output.close()
    os.environ.update(call.env)
    if forked and not cuda_is_untouched():
        connected.send(("cuda touched", None))
        return
    try:
        function_of(initialise)(*arguments)
        answer = ("returned", function_of(call.target)(*call.args, Sender(connected)))
    except Exception as error:  # noqa: BLE001  every error is the parent's to handle
        traceback.print_exc()
        user_error = str(error) if isinstance(error, UserError) else None
        answer = ("raised", (described(error), traceback.format_exc(), user_error))
    connected.send(answer)


def function_of(name: str) -> Callable[..., Any]:
    """The function "module:function"; imports the module."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def cuda_is_untouched() -> bool:
    """Whether a forked child can still create its own CUDA context, since a context does not survive a fork. If the
    parent had one, `torch.cuda.is_initialized()` is False here, and no public function reports PyTorch's mark."""
    torch = sys.modules.get("torch")
    return torch is None or not (torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork())


def _redirect_output(output: connection.Connection) -> None:
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s][%(name)s][%(levelname)s] %(message)s")
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)


def die_with_parent() -> None:
    """Watch the parent from now on, and end this process when the parent ends: no orphan stays on the device."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=wait, daemon=True).start()
