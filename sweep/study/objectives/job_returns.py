"""The exception of a job that failed, from what Hydra returns for the job."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from hydra.core.utils import JobReturn, JobStatus


def exception_of(returned: JobReturn) -> Exception | None:
    """The exception that a job raised, or None if the job is complete.

    Hydra's property raises the exception, and prints all overrides to stderr, which may contain credentials. The
    printed line is discarded.
    """
    if returned.status is JobStatus.COMPLETED:
        return None
    try:
        with redirect_stderr(io.StringIO()):
            _ = returned.return_value
    except Exception as error:  # noqa: BLE001  the job's own exception, of any class
        return error
    return None
