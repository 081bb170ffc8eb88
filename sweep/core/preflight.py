"""Checks before anything is launched or written: output folders and the tracking store."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from sweep.core import program, redaction
from sweep.core.errors import Fault, UserError

_TIMEOUT_SECONDS = 5.0
_WEB_PORTS = {"http": 80, "https": 443}
_DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "pymysql": "pymysql"}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def output_fault(key: str, folder: str) -> Iterator[Fault]:
    """The fault of an output folder that cannot be created or written."""
    path = Path(folder).absolute()
    try:
        nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    except OSError as error:
        yield Fault(key, folder, f"cannot be created: {error.strerror}")
        return
    if not nearest.is_dir():
        yield Fault(key, folder, f"cannot be created: {nearest} is not a folder; choose another")
        return
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".paretune-", dir=nearest))  # root can write despite the permissions
    except OSError as error:
        yield Fault(key, folder, f"cannot be written: {error.strerror} in {nearest}; choose another")


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI ("sqlite:///mlflow.db"), else None."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix).partition("?")[0]) if uri.startswith(prefix) else None


def require_store(uri: str) -> None:
    """Raises UserError where the tracking store is a SQLite file that does not exist."""
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        raise UserError(
            f"there is no tracking store {file}. Run a study first ({program.command('sweep')} -m "
            "experiment=quickstart), change to the folder of your study, or name the store: "
            "tracking.uri=sqlite:////folder/mlflow.db (the UI: --store)"
        )


def store_fault(key: str, uri: str) -> Iterator[Fault]:
    """The fault of a database or server that does not answer. The store is not opened."""
    shown = redaction.text(uri)
    file = sqlite_path(uri)
    if file is not None:
        yield from _sqlite_fault(key, shown, file)
        return
    try:
        parts = urlsplit(uri)
        host, given_port = parts.hostname, parts.port
    except ValueError as error:
        yield Fault(key, shown, f"is not a URI: {error}")
        return
    default_port = _WEB_PORTS.get(parts.scheme) or _DATABASE_PORTS.get(parts.scheme.partition("+")[0])
    if default_port is None:
        rule = "is not a supported store; give sqlite:////folder/file.db, http://host:port, or postgresql://…"
        yield Fault(key, shown, rule)
        return
    if not host:
        yield Fault(key, shown, "has no host")
        return
    port = given_port or default_port
    try:
        if parts.scheme in _WEB_PORTS:
            _request(parts.scheme, host, port)
        else:
            socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS).close()
    except (OSError, http.client.HTTPException) as error:
        yield Fault(
            key,
            shown,
            f"cannot be reached at {host}:{port} ({getattr(error, 'strerror', None) or error}); start the server, "
            "correct the address, or use a file: sqlite:////folder/mlflow.db",
        )
        return
    yield from driver_fault(key, parts.scheme)


def driver_fault(key: str, scheme: str) -> Iterator[Fault]:
    """The fault of a database whose driver is not installed. `scheme` is as SQLAlchemy reads it: dialect+driver."""
    dialect, _, driver = scheme.partition("+")
    module = driver or ("psycopg2" if dialect == "postgresql" else "")  # SQLAlchemy's default
    if module in _DRIVERS and find_spec(module) is None:
        other = "" if driver else "; or name the newer driver: postgresql+psycopg://…"
        yield Fault(key, scheme, f"needs the package {module}: pip install '{_DRIVERS[module]}'{other}")


def _request(scheme: str, host: str, port: int) -> None:
    """Request any answer: a server that accepts the connection and does not answer would delay a study by minutes."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("HEAD", "/health")
        connection.getresponse()
    finally:
        connection.close()


def _sqlite_fault(key: str, shown: str, file: Path) -> Iterator[Fault]:
    if not file.exists():
        yield from output_fault(key, str(file.parent))
        return
    try:
        # For writing, where that is allowed: a transaction that a killed process left is rolled back, which a reader
        # cannot do.
        mode = "rw" if os.access(file, os.W_OK) else "ro"
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True)
        try:
            connection.execute("select name from sqlite_master limit 1")
        finally:
            connection.close()
    except sqlite3.Error as error:
        yield Fault(key, shown, f"is not a usable SQLite file ({error}); name another, or move it away")
        return
    if not os.access(file, os.W_OK):
        yield Fault(key, shown, f"cannot be written: no permission for {file}")
