"""Record → MLflow → Record on a real SQLite store, and several processes that open one store at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from sweep.core import process_identity
from sweep.core.errors import UserError
from sweep.core.record import Outcome, Record
from sweep.tracking.mlflow_reader import MlflowReader
from sweep.tracking.mlflow_store import MlflowStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    folder = tmp_path_factory.mktemp("store")
    return MlflowStore(f"sqlite:///{folder}/mlflow.db", "tests", str(folder / "artifacts"))


TEXT = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=30).map(str.strip).filter(bool)
RECORDS = st.builds(
    Record,
    variant=TEXT,
    setting=TEXT,
    seed=st.integers(0, 2**32 - 1),
    outcome=st.sampled_from(Outcome),
    reason=TEXT,
    study=TEXT,
    trial=st.integers(0, 10**6),
    conditions_hash=st.text("0123456789abcdef", min_size=12, max_size=12),
    measurements=st.dictionaries(
        st.sampled_from(["score", "max_memory_allocated", "eval/exact_match", "time/load_seconds"]),
        st.floats(-1e15, 1e15, allow_nan=False),
    ),
    facts=st.dictionaries(st.sampled_from(["device", "memory_source", "version.torch"]), TEXT),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=RECORDS)
def test_a_record_is_the_same_after_a_round_trip(store: MlflowStore, tmp_path: Path, record: Record):
    parent = store.create_study("a study", {"train.max_steps": "3"}, {})
    row = store.open_run(record, parent.info.run_id, {"train.max_steps": "3"}, {"train": {"max_steps": 3}})
    row.metrics(1, {"train/loss": 2.0})
    artifact = tmp_path / "a.txt"
    artifact.write_text("x")
    row.close(record, [artifact])
    [(run_id, back)] = store.records(parent.info.run_id)
    assert run_id == row.run_id
    assert back == record
    kept = {file.path for file in store.client.list_artifacts(run_id)}
    assert kept == {"a.txt", "config.yaml"}


def test_a_row_is_killed_until_its_run_ends(store: MlflowStore):
    parent = store.create_study("unfinished", {}, {})
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OK)
    store.open_run(record, parent.info.run_id, {}, {})
    [(run_id, back, is_running)] = store.rows(parent.info.run_id)
    assert (back.outcome, is_running) == (Outcome.KILLED, True)
    store.end(run_id, back.outcome)
    assert store.client.get_run(run_id).info.status == "KILLED"


def test_a_run_alone_whose_program_died_is_closed_by_the_next_one(store: MlflowStore):
    code = "from sweep.core import process_identity; print(process_identity.identity())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    rows = {}
    for name in (dead, process_identity.identity(), "other/machine/1/1"):
        record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OK, facts={"coordinator": name})
        rows[name] = store.open_run(record, None, {}, {}).run_id
    store.close_abandoned()
    states = [store.client.get_run(run_id).info.status for run_id in rows.values()]
    assert states == ["KILLED", "RUNNING", "RUNNING"]


def test_an_interruption_of_the_store_does_not_end_a_training(store: MlflowStore, monkeypatch: pytest.MonkeyPatch):
    parent = store.create_study("interrupted", {}, {})
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OK)
    row = store.open_run(record, parent.info.run_id, {}, {})
    monkeypatch.setattr("sweep.tracking.mlflow_store.FLUSH_SECONDS", -1)

    def unavailable(*args: object, **kwargs: object) -> None:
        raise MlflowException("503")

    with monkeypatch.context() as broken:
        broken.setattr(store.client, "log_batch", unavailable)
        row.metrics(1, {"train/loss": 2.0})
        with pytest.raises(UserError):
            row.close(record, [])
    row.metrics(2, {"train/loss": 1.0})
    row.close(record, [])
    kept = store.client.get_metric_history(row.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in kept] == [(1, 2.0), (2, 1.0)]


def test_a_run_that_begins_and_ends_while_the_store_does_not_answer_is_sent_later(
    store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parent = store.create_study("away", {}, {}).info.run_id
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OK, measurements={"score": 0.5})
    (tmp_path / "validation_examples.parquet").write_text("x")

    def unavailable(*args: object, **kwargs: object) -> None:
        raise MlflowException("503")

    with monkeypatch.context() as broken:
        broken.setattr(store.client, "create_run", unavailable)
        row = store.open_run(record, parent, {"seed": "0"}, {})
        row.metrics(1, {"train/loss": 2.0})
        with pytest.raises(UserError):
            row.close(record, [tmp_path / "validation_examples.parquet"])
        row.hold(tmp_path)
    assert store.rows(parent) == []
    run_id = store.send(record.added({}, {"folder": str(tmp_path)}), parent, tmp_path)
    assert store.rows(parent) == [(run_id, record, False)]
    assert [(m.step, m.value) for m in store.client.get_metric_history(run_id, "train/loss")] == [(1, 2.0)]
    assert "validation_examples.parquet" in {file.path for file in store.client.list_artifacts(run_id)}
    again = store.send(record.added({}, {"mlflow_run_id": run_id}), parent, tmp_path)  # of a later process
    assert (again, len(store.rows(parent))) == (run_id, 1)


@pytest.mark.parametrize("name", ["it's", 'a "b"', """it's "both" """.strip(), "ünïcödé 모델"])
def test_a_study_with_quotation_marks_in_its_name_is_found(store: MlflowStore, name: str):
    store.create_study(name, {"k": "v"}, {})
    assert store.study_conditions(store.find_study(name)) == {"k": "v"}
    assert store.find_study(f"{name} not") is None


def test_a_reader_creates_neither_a_store_nor_an_experiment(store: MlflowStore, tmp_path: Path):
    with pytest.raises(UserError, match="there is no tracking store"):
        MlflowReader(f"sqlite:///{tmp_path}/mlflow.db", "tests")
    with pytest.raises(UserError, match="has no experiment other"):
        MlflowReader(store.uri, "other")
    assert list(tmp_path.iterdir()) == []
    assert MlflowReader(store.uri, "tests").experiment_id == store.experiment_id


def test_a_search_reads_all_pages(store: MlflowStore, monkeypatch: pytest.MonkeyPatch):
    parent = store.create_study("pages", {}, {}).info.run_id
    for seed in range(5):
        store.open_run(Record(variant="v", setting="v", seed=seed, outcome=Outcome.OK), parent, {}, {})
    monkeypatch.setattr("sweep.tracking.mlflow_reader._PAGE", 2)
    assert sorted(record.seed for _, record in store.records(parent)) == [0, 1, 2, 3, 4]
    assert len(store.children(parent, limit=3)) == 3


@pytest.mark.long
def test_four_processes_open_a_fresh_store_at_once(tmp_path: Path):
    """Without a lock, half of the tries left a database that never opens again."""
    code = (
        "import sys; from sweep.tracking.mlflow_store import MlflowStore; from sweep.core.record import *\n"
        "store = MlflowStore(f'sqlite:///{sys.argv[1]}/mlflow.db', 'raced', sys.argv[1] + '/artifacts')\n"
        "record = Record(variant='v', setting='v', seed=int(sys.argv[2]), outcome=Outcome.OK)\n"
        "store.open_run(record, None, {}, {})\n"
        "print(store.experiment_id)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "raced", str(tmp_path / "artifacts"))
    found = store.client.search_runs([store.experiment_id])
    assert sorted(run.data.tags["seed"] for run in found) == ["0", "1", "2", "3"]


def test_the_error_of_a_broken_store_is_one_sentence(tmp_path: Path):
    broken = tmp_path / "mlflow.db"
    broken.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(UserError, match=r"tracking store .* failed"):
        MlflowStore(f"sqlite:///{broken}", "x", str(tmp_path))
