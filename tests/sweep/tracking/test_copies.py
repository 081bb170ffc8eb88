"""Copies of a run's metrics: what other readers find in them, and that no copy can end a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import compose
from store import record
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.launch import run_supervisor
from sweep.tracking import copies
from sweep.tracking.copies import CopiedLog


class Row:
    """A row that keeps what it gets."""

    run_id = "abc"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.seen.append((step, values))

    def close(self, record: object, artifacts: object) -> None:
        self.seen.append("closed")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name, as TensorBoard reads them."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_all_copies_have_what_mlflow_has(tmp_path: Path):
    row, run = Row(), record("a", 0, 0.5, 10.0)
    both = CopiedLog(row, run, ["jsonl", "tensorboard"], tmp_path, {}, "paretune")
    both.metrics(3, {"train/loss": 1.0})
    both.metrics(4, {"train/loss": float("nan")})
    both.close(run, [])
    assert both.run_id == "abc"
    assert row.seen[0] == (3, {"train/loss": 1.0})
    assert row.seen[-1] == "closed"
    *steps, last = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert steps == [{"step": 3, "train/loss": 1.0}, {"step": 4, "train/loss": None}]
    assert last["record"]["setting"] == "a"
    found = scalars(tmp_path / "tensorboard")
    assert (found["train/loss"][0], found["score"]) == ((3, 1.0), [(0, 0.5)])


def test_a_copy_that_fails_ends_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Broken(copies.JsonLines):
        def metrics(self, step: int, values: object) -> None:
            raise OSError("disk full")

    monkeypatch.setitem(copies.KINDS, "jsonl", Broken)
    row = Row()
    both = CopiedLog(row, record("a", 0), ["jsonl", "wandb"], tmp_path, {}, "paretune")  # wandb is not installed here
    both.metrics(1, {"x": 1.0})
    both.metrics(2, {"x": 2.0})
    both.close(record("a", 0), [])
    assert [*row.seen] == [(1, {"x": 1.0}), (2, {"x": 2.0}), "closed"]
    assert [line.getMessage().partition(" ends here")[0] for line in caplog.records] == [
        "a · seed 0: the copy for wandb", "a · seed 0: the copy for jsonl",
    ]  # fmt: skip


def test_what_is_not_installed_or_not_known_is_refused():
    with pytest.raises(ConfigError, match=r"wandb, which is not installed \(pip install wandb\)"):
        parse(compose("tracking.also=[wandb]"))
    with pytest.raises(ConfigError, match=r"tracking\.also"):
        parse(compose("tracking.also=[tensorflow]"))
    assert parse(compose("tracking.also=[jsonl,tensorboard]")).tracking.also == ("jsonl", "tensorboard")


def test_a_server_in_the_environment_that_is_not_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(run_supervisor, "MlflowStore", lambda *args: SimpleNamespace(uri=args[0]))
    run_supervisor.store.cache_clear()
    uri = f"sqlite:///{tmp_path}/a.db"
    tracking = parse(compose(f"tracking.uri={uri}")).tracking
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    run_supervisor.store(tracking)
    run_supervisor.store(tracking)
    [line] = [line.getMessage() for line in caplog.records]
    assert "tracking=server takes it" in line
    assert "secret" not in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run_supervisor.store.cache_clear()
    run_supervisor.store(tracking)
    assert len(caplog.records) == 1
    run_supervisor.store.cache_clear()
