"""The tables of the book, and the database that has them."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)  # fmt: skip
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.functions import FunctionElement

from sweep.core.preflight import sqlite_path
from sweep.study.storage import engine_options, url_of

_LOCK_SECONDS = 30  # that a statement waits for another process
_TABLES = MetaData()
_NAME = 250  # characters: an index of MySQL takes no longer ones

STUDIES = Table(
    "paretune_study", _TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String(_NAME), nullable=False),
    Column("parent", String(64), nullable=False),
    Column("conditions", Text),
    UniqueConstraint("name", "parent"),
)  # fmt: skip
COORDINATORS = Table(
    "paretune_coordinator", _TABLES,
    Column("study", ForeignKey("paretune_study.id"), primary_key=True),
    Column("name", String(_NAME), primary_key=True),
    Column("beat", Float(53), nullable=False),
)  # fmt: skip
SETTINGS = Table(
    "paretune_setting", _TABLES,
    Column("id", Integer, primary_key=True),
    Column("study", ForeignKey("paretune_study.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("params", Text),
    Column("trial", Integer),
    Column("stopped", Boolean, nullable=False, default=False),
    Column("reported", Boolean, nullable=False, default=False),
    Index("paretune_setting_of_study", "study", "reported"),
)  # fmt: skip
RUNS = Table(
    "paretune_run", _TABLES,
    Column("id", Integer, primary_key=True),
    Column("study", ForeignKey("paretune_study.id"), nullable=False),
    Column("setting", ForeignKey("paretune_setting.id"), nullable=False),
    Column("seed", String(32), nullable=False),
    Column("place", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(_NAME)),
    Column("crashes", Integer, nullable=False, default=0),
    Column("outcome", String(16)),
    Column("result", Text),
    Column("final", Boolean),
    Column("record", Text),
    Column("row", String(64)),
    Column("sent", Boolean, nullable=False, default=True),
    UniqueConstraint("setting", "seed"),
    Index("paretune_run_of_study", "study", "state", "place"),
)  # fmt: skip


class database_now(FunctionElement):
    """The database's own time, in seconds since 1970."""

    type = Float(53)
    inherit_cache = True


@compiles(database_now, "postgresql")
def _postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())"


@compiles(database_now, "mysql")
@compiles(database_now, "mariadb")
def _mysql(element: Any, compiler: Any, **options: Any) -> str:
    return "unix_timestamp(now(6))"


@compiles(database_now, "sqlite")
def _sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def opened(storage: Any) -> Engine:
    """The database of the book with its tables: Optuna's, if it is a database; a file for another storage of Optuna; or
    the memory of this process."""
    url = url_of(storage)
    if url is None and storage and "InMemory" not in str(storage):
        text = str(storage) if isinstance(storage, Mapping) else type(storage).__name__
        url = f"sqlite:///{Path(tempfile.gettempdir(), f'paretune-{zlib.crc32(text.encode())}.db')}"
    if url is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    elif sqlite_path(url) is not None:
        one = {"timeout": _LOCK_SECONDS, "check_same_thread": False}  # the book has a lock of its own
        engine = create_engine(url, poolclass=StaticPool, connect_args=one)
        event.listen(engine, "connect", _no_implicit_transaction)
        event.listen(engine, "begin", _begin_immediate)
    else:
        engine = create_engine(url, pool_pre_ping=True, **engine_options(url))
    _TABLES.create_all(engine)
    return engine


def _no_implicit_transaction(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # sqlite3 would begin a transaction at the first write only


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("begin immediate")
