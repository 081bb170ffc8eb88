"""Per-example results: which are read, how resamples are scored, and why results cannot be used."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet
from sklearn.metrics import f1_score

from analysis.decision.score_noise import estimate_noise, from_examples, resampled
from analysis.loading.per_example import Absent, Examples, read
from sweep.core.errors import UserError
from sweep.metrics import ModelOutputs
from sweep.metrics.f1 import F1
from sweep.metrics.matthews import Matthews


def written(folder: Path, name: str, **columns: list) -> Path:
    path = folder / f"{name}.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_copies_of_an_example_in_one_group_count_as_one_example(tmp_path: Path):
    """Three copies of every example, in one group, give the same noise as the examples once."""
    values = (np.random.default_rng(0).random((4, 50)) < 0.7) * 1.0
    run_of, names = np.array([0, 0, 1, 1]), ["a", "b"]
    once, grouped = from_examples(values, run_of, names), np.repeat(np.arange(50), 3)
    again = from_examples(np.repeat(values, 3, axis=1), run_of, names, groups=grouped)
    for field in ("scores", "seed_sd", "own_variance", "covariance", "answer_variance", "n_examples"):
        assert np.allclose(getattr(once, field), getattr(again, field)), field
    passages = [f"passage {i}" for i in grouped]
    paths = {
        run_id: written(tmp_path, run_id, index=list(range(150)), em=list(np.repeat(row, 3)), passage=passages)
        for run_id, row in zip("abcd", values, strict=True)
    }
    means = dict(zip("abcd", values.mean(axis=1), strict=True))
    found = read(means, "em", None, paths.get, cluster="passage")
    assert isinstance(found, Examples)
    assert found.units == 50
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": list("xxyy"), "score": list(means.values())})
    assert estimate_noise(runs, found).own_variance == pytest.approx(once.own_variance)
    drawn = resampled(found, 2000, np.random.default_rng(0))
    assert drawn[:, 0].var() == pytest.approx(values[0].var() / 50, rel=0.15)
    with pytest.raises(UserError, match="did you mean passage"):
        read(means, "em", None, paths.get, cluster="pasage")


def test_examples_are_read_in_order_of_their_index(tmp_path: Path):
    paths = {
        "a": written(tmp_path, "a", index=[0, 1, 2], em=[1.0, 0.0, 1.0]),
        "b": written(tmp_path, "b", index=[2, 0, 1], em=[0.0, 1.0, 0.0]),
    }
    found = read({"a": 2 / 3, "b": 1 / 3}, "em", None, paths.get)
    assert isinstance(found, Examples)
    assert found.values is not None
    assert found.values.tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_metric_that_is_not_a_mean_is_not_used_as_a_mean(tmp_path: Path):
    path = written(tmp_path, "a", index=[0, 1], bleu=[10.0, 30.0])
    found = read({"a": 25.0}, "bleu", None, {"a": path}.get)
    assert isinstance(found, Absent)
    assert "is not the mean" in found.reason


def test_a_corpus_metric_is_built_from_the_tag_of_the_runs(tmp_path: Path):
    """Runs with other labels have other columns: a column that a run lacks counts 0."""
    metric = F1(average="macro")
    answers = {"a": (list("xxyy"), list("xyyy")), "b": (list("xxyz"), list("xyyy"))}
    paths, scores = {}, {}
    for run_id, (predictions, references) in answers.items():
        scores[run_id], columns = metric.measure(ModelOutputs(references, predictions))
        columns = {f"f1{suffix}": values for suffix, values in columns.items()}
        paths[run_id] = written(tmp_path, run_id, index=list(range(4)), **columns)
    found = read(scores, "f1", metric.facts()["corpus"], paths.get)
    assert isinstance(found, Examples)
    drawn = np.array([0, 2, 2, 3])
    weights = np.bincount(drawn, minlength=4)[None, :].astype(float)
    expected = [f1_score([w[i] for i in drawn], [p[i] for i in drawn], average="macro", zero_division=0)
                for p, w in answers.values()]  # fmt: skip
    assert found.scores(weights)[0] == pytest.approx(expected)


def test_a_corpus_metric_that_does_not_give_the_score_is_not_used(tmp_path: Path):
    path = written(tmp_path, "a", **{"f1/tp": [1.0, 0.0], "f1/fp": [0.0, 1.0], "f1/fn": [0.0, 0.0]})
    tag = F1(average="binary", positive_label="x").facts()["corpus"]
    assert isinstance(read({"a": 2 / 3}, "f1", tag, {"a": path}.get), Examples)
    refused = {
        "not what its statistics give": tag,
        "KeyError": Matthews().facts()["corpus"],
        "packages=[gone]": '{"_target_": "gone.Metric"}',
    }
    for reason, other in refused.items():
        found = read({"a": 0.5}, "f1", other, {"a": path}.get)
        assert isinstance(found, Absent)
        assert reason in found.reason


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "not every run"),
        ({"a": {"index": [0], "em": [1.0]}, "b": {"index": [1], "em": [1.0]}}, "same examples"),
        ({"a": {"index": [0]}, "b": {"index": [0]}}, "no column"),
        ({"a": {"index": [0], "em": [math.nan]}, "b": {"index": [0], "em": [1.0]}}, "are missing"),
    ],
)
def test_why_examples_cannot_be_used(tmp_path: Path, files: dict, reason: str):
    paths = {name: written(tmp_path, name, **columns) for name, columns in files.items()}
    found = read({"a": 1.0, "b": 1.0}, "em", None, paths.get)
    assert isinstance(found, Absent)
    assert reason in found.reason
