"""The start of the fork server. The server imports this module, and no other process does.

multiprocessing's fork server accepts a list of modules to import, and no function to call. So this module makes the
call when it is imported. The environment variable says which call.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress

from sweep.processes import child_process

VARIABLE = "PARETUNE_SERVER"
_SIGNAL_AT_PARENTS_DEATH = 1  # prctl's PR_SET_PDEATHSIG


def start(script: str, initialise: str, arguments: list[str]) -> None:
    """Prepare the server for its children.

    Args:
        script: the script that the user started, "" where there is none. The children do not import it again: a script
            may run its work when it is imported.
        initialise: the function to call here once, as "module:function". If it fails, each child calls it again, and
            the child reports the error.
        arguments: the function's arguments.
    """
    if sys.platform == "linux":  # by itself the server notices the death of its parent only after its imports
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if script:
        sys.modules["__main__"].__file__ = script
    with suppress(Exception, SystemExit):
        child_process.function_of(initialise)(*arguments)


start(*json.loads(os.environ.pop(VARIABLE)))
