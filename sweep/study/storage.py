"""Optuna's storage of a study, by `hydra.sweeper.storage`: a URL, a node with `_target_`, or null for memory."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from sweep.core.preflight import sqlite_path
from sweep.study.coordinator import engine_options
from sweep.study.search import samplers

KEY = "hydra.sweeper.storage"
STORAGE_FAILS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)


def opened(described: Any) -> BaseStorage:
    """The storage. UserError if a node describes none."""
    if not described:
        return optuna.storages.InMemoryStorage()
    if isinstance(described, str):
        return optuna.storages.RDBStorage(described, engine_options(described))
    return samplers.create(described, BaseStorage, KEY)


def url_of(described: Any) -> str | None:
    """The database of a storage: its own, or for a journal a SQLite file in its folder. None for another storage."""
    if isinstance(described, optuna.storages.RDBStorage):
        return described.url
    if isinstance(described, str) and described:
        return described
    if (url := next(_named(described, "url", "storage"), None)) is not None:
        return url
    journal = next(_named(described, "file_path"), None)
    return None if journal is None else f"sqlite:///{Path(journal).absolute()}.book"


def lock_of(described: Any) -> str | Path | None:
    """Where the study's coordinators have their lock: a lock file, the URL of a database with locks of its own, or None
    for a storage in memory. The lock of a storage of another kind is a file of this machine."""
    url = url_of(described)
    if url is not None:
        file = sqlite_path(url)
        return url if file is None else Path(f"{file.absolute()}.lock")
    if not described or "InMemory" in str(described):
        return None
    text = str(described) if isinstance(described, Mapping) else type(described).__name__
    return Path(tempfile.gettempdir(), f"paretune-{zlib.crc32(text.encode())}.lock")


def _named(node: Any, *keys: str) -> Iterator[str]:
    """The texts under these keys, at any depth of a node."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key in keys and isinstance(value, str):
            yield value
        yield from _named(value, *keys)
