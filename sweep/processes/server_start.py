"""The start of the fork server. Only the server imports this module.

multiprocessing's fork server accepts a list of modules to import, and no function to call. So this module makes the
call of the environment variable when it is imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress

from sweep.processes import child_process

_SIGNAL_AT_PARENTS_DEATH = 1  # prctl's PR_SET_PDEATHSIG


def _start(environment: dict[str, str | None], script: str, initialise: str, arguments: list[str]) -> None:
    if sys.platform == "linux":  # by itself the server notices the death of its parent only after its imports
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    child_process.set_environment(environment)  # what was set for this process alone
    if script:  # of the user. The children do not import it again: it may run its work when it is imported
        sys.modules["__main__"].__file__ = script
    with suppress(Exception, SystemExit):  # each child calls it again, and reports the error
        child_process.function_of(initialise)(*arguments)


_start(*json.loads(os.environ.pop(child_process.SERVER_VARIABLE)))
