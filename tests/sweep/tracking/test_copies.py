"""Copies of a run's metrics: what other readers find in them, and that no copy can end a run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import compose
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from store import record

from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.launch import run_supervisor
from sweep.tracking import copies
from sweep.tracking.copies import CopiedLog
from sweep.tracking.tensorboard_events import EventFile, crc32c


class Row:
    """A row that keeps what it gets."""

    run_id = "abc"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.seen.append((step, values))

    def close(self, record: object, artifacts: object) -> None:
        self.seen.append("closed")


def events(file: Path) -> list[Any]:
    """The file's events, decoded by the protobuf library with the field numbers of TensorFlow's event.proto and
    summary.proto."""
    proto = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    kinds = {"double": 1, "float": 2, "int64": 3, "string": 9, "message": 11}

    def message(name: str, *fields: tuple[str, int, str, str, bool]) -> None:
        made = proto.message_type.add(name=name)
        for field, number, kind, of, repeated in fields:
            one = made.field.add(name=field, number=number, type=kinds[kind], label=3 if repeated else 1)
            if of:
                one.type_name = f".t.{of}"

    message("Value", ("tag", 1, "string", "", False), ("simple_value", 2, "float", "", False))
    message("Summary", ("value", 1, "message", "Value", True))
    message("Event", ("wall_time", 1, "double", "", False), ("step", 2, "int64", "", False),
            ("file_version", 3, "string", "", False), ("summary", 5, "message", "Summary", False))  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    event = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_the_checksum_is_rfc_3720_s():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_an_event_file_has_the_version_and_the_values_of_each_step(tmp_path: Path):
    file = EventFile(tmp_path)
    file.scalars(1, {"train/loss": 2.5})
    file.scalars(300, {"train/loss": 1.5, "eval/점수": 0.25})
    file.close()
    [path] = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    first, *others = events(path)
    assert first.file_version == "brain.Event:2"
    assert [(e.step, [(v.tag, v.simple_value) for v in e.summary.value]) for e in others] == [
        (1, [("train/loss", 2.5)]),
        (300, [("train/loss", 1.5), ("eval/점수", 0.25)]),
    ]


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
    [path] = (tmp_path / "tensorboard").iterdir()
    assert events(path)[-1].summary.value[0].tag == "score"


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
