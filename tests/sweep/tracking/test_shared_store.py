"""A store that others use, too: rows that are not ours, damaged rows, moved folders, deleted experiments."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from store import Written, record

from analysis import pipeline
from analysis.loading.mlflow_store import StudyReader
from sweep.core.errors import UserError
from sweep.tracking.mlflow_reader import MlflowReader
from sweep.tracking.mlflow_store import MlflowStore

pytestmark = pytest.mark.slow
RUNS = [record(name, seed, score, 1e9 * memory) for name, score, memory in (("fft", 0.9, 4), ("lora", 0.5, 2))
        for seed in (0, 1)]  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Written:
    (tmp_path / "project").mkdir()
    made = Written(tmp_path / "project")
    made.study("s", RUNS)
    return made


def options(written: Written, **tracking: str) -> dict:
    return {
        "study": "s", "source": None, "compare": None, "threshold": 0.99, "margin": None, "direction": None,
        "memory_metric": "max_memory_allocated", "allow_different": [], "cluster": None, "price": 2, "pdf": False,
        "out": str(written.folder / "report"),
        "tracking": {"uri": written.uri, "experiment": written.experiment, **tracking},
    }  # fmt: skip


def row_of(written: Written, seed: int) -> str:
    """The id of a run of fft."""
    [parent] = written.store.studies("s")
    [found] = [r.info.run_id for r in written.store.children(parent.info.run_id)
               if (r.data.tags["setting"], r.data.tags["seed"]) == ("fft", str(seed))]  # fmt: skip
    return found


def test_a_row_that_is_not_ours_is_left_out_by_both_programs(written: Written, caplog: pytest.LogCaptureFixture):
    [parent] = written.store.studies("s")
    tags = {"mlflow.parentRunId": parent.info.run_id}
    other = written.store.client.create_run(written.store.experiment_id, run_name="a plot", tags=tags)
    study = StudyReader(written.uri, written.experiment).study("s")
    assert len(study.runs) == 4
    words = f"Row a plot ({other.info.run_id}) below the study's row is left out: it has no tag kind = run"
    assert study.notes[0].startswith(words)
    with caplog.at_level(logging.WARNING):
        assert len(written.store.rows(parent.info.run_id)) == 4
    assert words in caplog.text
    assert "6 ok" not in pipeline.answer(options(written) | {"study": None})


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        *((key, None, f"it has no tag {key}") for key in ("variant", "setting", "seed", "outcome")),
        ("kind", None, "no tag kind = run"),
        ("seed", "first", "its tag seed = first is not a number below 2^63"),
        ("seed", "9" * 5000, f"its tag seed = {'9' * 40} is not a number"),
        ("seed", str(2**63), "is not a number below 2^63"),
        ("trial", "x", "its tag trial = x is not a number"),
        ("conditions", '{"a": NaN}', "its tag conditions is not JSON"),
        ("conditions", '{"a":' + "[" * 3000 + "]" * 3000 + "}", "its tag conditions is not JSON"),
        ("outcome", "fine", "its tag outcome = fine is none of ok, oom"),
        ("conditions", "{", "its tag conditions is not JSON"),
    ],
)
def test_a_damaged_row_is_named_and_left_out(written: Written, tag: str, value: str | None, words: str):
    run_id, client = row_of(written, 1), written.store.client
    if value is None:
        client.delete_tag(run_id, tag)
    else:
        client.set_tag(run_id, tag, value)
    study = StudyReader(written.uri, written.experiment).study("s")
    assert len(study.runs) == 3
    assert run_id in study.notes[0]
    assert words in study.notes[0]
    assert len(written.store.records(study.parent_id)) == 3


@pytest.mark.parametrize(
    "tag", ["metric", "direction", "memory_source", "conditions_hash", "conditions", "reason", "device"]
)
def test_a_lost_tag_of_less_weight_does_not_stop_the_report(written: Written, tag: str):
    for seed in (0, 1):
        run_id = row_of(written, seed)
        if tag in written.store.run(run_id).data.tags:
            written.store.client.delete_tag(run_id, tag)
    assert "Use fft" in pipeline.answer(options(written))


def test_a_project_that_was_moved_is_refused_with_what_to_do(written: Written, tmp_path: Path):
    moved = tmp_path / "it's moved"
    shutil.move(written.folder, moved)
    old, written.folder = written.folder, moved
    uri, artifacts = f"sqlite:///{moved}/mlflow.db", str(moved / "artifacts")
    with pytest.raises(UserError) as caught:
        MlflowStore(uri, written.experiment, artifacts)
    words = f"are in {old}/artifacts, which does not exist, and tracking.artifacts = {artifacts}"
    assert words in str(caught.value)
    asked = options(written, artifacts=artifacts) | {"out": str(tmp_path / "out")}
    asked["tracking"]["uri"] = uri
    answer = pipeline.answer(asked)
    assert words in answer
    assert not old.exists()

    file, statement = shlex.split(re.search(r"sqlite3 (.*;'?) To keep", str(caught.value))[1])
    with sqlite3.connect(file) as connection:
        connection.executescript(statement)
    connection.close()
    store = MlflowStore(uri, written.experiment, artifacts)
    [parent] = store.studies("s")
    assert store.find_file(parent.info.run_id, parent.info.artifact_uri, "conditions.json").is_relative_to(moved)
    study = StudyReader(uri, written.experiment).study("s")
    assert all(study.find_examples(run_id).is_relative_to(moved) for run_id in study.runs["run_id"])


def test_a_copy_does_not_write_into_the_project_it_was_copied_from(written: Written, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(written.folder, copy)
    with pytest.raises(UserError, match=r"which exists, and tracking\.artifacts"):
        MlflowStore(f"sqlite:///{copy}/mlflow.db", written.experiment, str(copy / "artifacts"))
    kept = MlflowStore(f"sqlite:///{copy}/mlflow.db", written.experiment, str(written.folder / "artifacts"))
    assert kept.misplaced(str(written.folder / "artifacts")) == ""
    os.symlink(written.folder / "artifacts", tmp_path / "link")
    assert kept.misplaced(str(tmp_path / "link")) == ""


def test_damaged_conditions_are_told(written: Written):
    [parent] = written.store.studies("s")
    file = MlflowReader(written.uri, written.experiment).find_file(
        parent.info.run_id, parent.info.artifact_uri, "conditions.json"
    )
    file.write_text("{")
    with pytest.raises(UserError, match=r"conditions\.json of study s is damaged"):
        written.store.study_conditions(parent)


def test_a_deleted_study_is_found_for_restoring(written: Written):
    [parent] = written.store.studies("s")
    assert written.store.deleted_studies("s") == []
    written.store.client.delete_run(parent.info.run_id)
    assert written.store.deleted_studies("s") == [parent.info.run_id]
    assert written.store.deleted_studies("t") == []
    with pytest.raises(
        UserError, match=f"it was deleted; restore it: mlflow runs restore --run-id {parent.info.run_id}"
    ):
        StudyReader(written.uri, written.experiment).study("s")


def test_both_programs_know_that_an_experiment_was_deleted(written: Written):
    MlflowClient(written.uri).delete_experiment(written.store.experiment_id)
    for opened in (
        lambda: StudyReader(written.uri, written.experiment),
        lambda: MlflowStore(written.uri, written.experiment, str(written.folder / "artifacts")),
    ):
        with pytest.raises(UserError, match=rf"was deleted .*--experiment-id {written.store.experiment_id}\)"):
            opened()
