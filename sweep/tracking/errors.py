"""The failures of a tracking store as one sentence, and MLflow's loggers made quiet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sweep.core import redaction
from sweep.core.errors import UserError, first_line


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn an exception of the store into a UserError of one sentence, without credentials."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        first = first_line(getattr(error, "message", None) or error)
        raise UserError(
            redaction.text(
                f"the tracking store {uri} failed: {first}\n"
                "Check tracking.uri (a file: sqlite:////folder/mlflow.db; a server: http://host:port). The store must "
                "be running and writable."
            )
        ) from error


def set_up_mlflow() -> None:
    """Silence messages about database migrations, and give up on an unreachable server after about a minute.

    MLflow's own defaults retry for several minutes. Environment variables that are set already stay.
    """
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs each retry
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs the traceback of what it raises
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it has the password of the URI
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
