"""An outage of the study's storage: training goes on, results are held, and nothing new begins until it answers."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sweep.core import redaction
from sweep.core.errors import first_line
from sweep.study.storage import KEY, STORAGE_FAILS

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 1800.0
_LONGEST_SECONDS = 30.0
Result = TypeVar("Result")


def retries() -> Iterator[float]:
    """Seconds to wait before each further attempt: 1, 2, 4 … 30, up to PATIENCE_SECONDS in all."""
    waited = 0.0
    for number in itertools.count():
        delay = min(2.0**number, _LONGEST_SECONDS)
        if (waited := waited + delay) > PATIENCE_SECONDS:
            return
        yield delay


def patiently(call: Callable[[], Result]) -> Result:
    """Call, and call again while the storage fails. The call is a transaction, which fails or succeeds whole."""
    said = False
    for delay in retries():
        try:
            return call()
        except STORAGE_FAILS as error:
            if not said:
                said = True
                shown = redaction.text(first_line(error))
                log.warning("%s does not answer: %s. Runs go on, their results are held, and none begins.", KEY, shown)
            time.sleep(delay)
    return call()
