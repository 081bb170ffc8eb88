"""Optuna's storage by a URL, a node or null; coordinators of one storage find the same lock."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sweep.core.errors import UserError
from sweep.study import storage

JOURNAL = "optuna.storages.JournalStorage"
BACKEND = "optuna.storages.journal.JournalFileBackend"


def test_a_node_describes_a_storage(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    opened = storage.opened({"_target_": "optuna.storages.RDBStorage", "url": url, "heartbeat_interval": None})
    assert opened.url == url
    file = str(tmp_path / "journal.log")
    kept = storage.opened({"_target_": JOURNAL, "log_storage": {"_target_": BACKEND, "file_path": file}})
    optuna.create_study(study_name="x", storage=kept)
    assert "x" in Path(file).read_text()
    assert isinstance(storage.opened(None), optuna.storages.InMemoryStorage)
    with pytest.raises(UserError, match="creates a RandomSampler, not a BaseStorage"):
        storage.opened({"_target_": "optuna.samplers.RandomSampler"})


def test_the_same_storage_has_the_same_lock(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    node = {"_target_": "optuna.storages.RDBStorage", "url": url}
    places = {storage.lock_of(one) for one in (url, node, optuna.storages.RDBStorage(url))}
    assert places == {tmp_path / "optuna.db.lock"}
    assert storage.lock_of("postgresql://h/db") == "postgresql://h/db"
    assert storage.lock_of({"_target_": "optuna.storages.RDBStorage", "url": "mysql://h/db"}) == "mysql://h/db"
    journal = {"_target_": JOURNAL, "log_storage": {"_target_": BACKEND, "file_path": f"{tmp_path}/j.log"}}
    assert storage.lock_of(journal) == tmp_path / "j.log.book.lock"
    other = {"_target_": "optuna.storages.GrpcStorageProxy", "host": "h"}
    assert storage.lock_of(other) == storage.lock_of(dict(other))
    assert storage.lock_of({**other, "host": "i"}) != storage.lock_of(other)
    for memory in (None, {"_target_": "optuna.storages.InMemoryStorage"}, optuna.storages.InMemoryStorage()):
        assert storage.lock_of(memory) is None
