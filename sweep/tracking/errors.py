"""A tracking store's failures as one sentence, and MLflow's loggers made quiet."""

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
    """A store's failure as one sentence, without credentials."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        first = first_line(getattr(error, "message", None) or error)
        raise UserError(
            redaction.text(
                f"the tracking store {uri} does not do its work: {first}\n"
                "Check tracking.uri (a file: sqlite:////folder/mlflow.db; a server: http://host:port), and that it is "
                "up and may be written to."
            )
        ) from error


def set_up_mlflow() -> None:
    """Quiet about database migrations, and fail soon where a server is gone, instead of trying for minutes."""
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of each retry
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
