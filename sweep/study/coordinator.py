"""Who runs a study: each coordinator's heartbeat, and the lock that they share.

Several coordinators, on one machine or on many, work on one study if they share its storage. The book gives each run to
one of them, without a lock. The lock is held while a command opens the study, and while a setting gets its trial in
Optuna, which takes several steps.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sweep.core import redaction
from sweep.core.errors import UserError

log = logging.getLogger(__name__)
BEAT_SECONDS = 20.0
_CONNECT_SECONDS = 10
_LOCK_SECONDS = 600  # a coordinator holds the lock for seconds
_SAY_SECONDS = 10.0
# By kind of database: the statements that acquire and release a lock.
_ADVISORY = {
    "postgresql": ("select pg_advisory_lock(7041, :key)", "select pg_advisory_unlock(7041, :key)"),
    "mysql": (
        f"select get_lock(concat('paretune', :key), {_LOCK_SECONDS})",
        "select release_lock(concat('paretune', :key))",
    ),
}


def engine_options(storage: str) -> dict[str, Any]:
    """Options for SQLAlchemy's `create_engine`: a time limit for a server that accepts a connection and is silent."""
    return {"connect_args": {"connect_timeout": _CONNECT_SECONDS}} if _kind_of(storage) in _ADVISORY else {}


def _kind_of(storage: str) -> str:
    return storage.partition(":")[0].partition("+")[0]


class Heartbeat:
    """Calls `beat` every BEAT_SECONDS inside a `with` block. Optuna's own heartbeat works in `study.optimize` only."""

    def __init__(self, beat: Callable[[], None]):
        self._beat = beat
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _repeat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._beat()
            except (SQLAlchemyError, OSError) as error:
                log.warning("no heartbeat: %s", error)


class StudyLock:
    """Held by one coordinator at a time, of all that share an Optuna storage. `place` is a lock file, or the URL of a
    PostgreSQL (advisory lock) or MySQL (named lock). None: a study in memory has one process only."""

    def __init__(self, place: str | Path | None, study: str):
        self._place = place
        self._study = study
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._thread, nullcontext() if self._depth else self._between_processes():
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def _between_processes(self) -> AbstractContextManager[Any]:
        if self._place is None:
            return nullcontext()
        return self._in_file(self._place) if isinstance(self._place, Path) else self._in_database(self._place)

    @contextmanager
    def _in_file(self, path: Path) -> Iterator[None]:
        lock = FileLock(path)
        with _waiting(str(path)):
            lock.acquire(timeout=_LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _in_database(self, url: str) -> Iterator[None]:
        kind = _kind_of(url)
        if kind not in _ADVISORY:
            raise UserError(
                f"hydra.sweeper.storage: must be SQLite, PostgreSQL or MySQL; {kind} has no lock for coordinators"
            )
        key = {"key": zlib.crc32(self._study.encode()) - (1 << 31)}  # PostgreSQL's is a signed number of 32 bits
        engine = create_engine(url, poolclass=NullPool, **engine_options(url))
        with engine.connect() as connection:  # the lock ends with the connection
            acquire, release = map(text, _ADVISORY[kind])
            with _waiting(kind):
                if kind == "postgresql":
                    connection.execute(text(f"set lock_timeout = '{_LOCK_SECONDS}s'"))
                if connection.scalar(acquire, key) == 0:  # of MySQL
                    raise Timeout(url)
            try:
                yield
            finally:
                connection.execute(release, key)


@contextmanager
def _waiting(place: str) -> Iterator[None]:
    """Say after _SAY_SECONDS that another coordinator has the lock, and after _LOCK_SECONDS raise UserError."""
    shown = redaction.text(place)
    message = "Waiting for the study's lock (%s): another coordinator begins, or has stopped while it holds the lock."
    timer = threading.Timer(_SAY_SECONDS, log.warning, (message, shown))
    timer.daemon = True
    timer.start()
    try:
        yield
    except (Timeout, DBAPIError) as error:
        if isinstance(error, DBAPIError) and "lock timeout" not in str(error):
            raise
        raise UserError(
            f"the study's lock ({shown}) was not free for {_LOCK_SECONDS} s. Find the other command of this study: it "
            "may be stopped (Ctrl-Z) or frozen; end it, and give this command again"
        ) from error
    finally:
        timer.cancel()
