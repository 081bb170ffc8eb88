"""A metric in a folder outside the repository: one Python file and one YAML file are enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from pyarrow import parquet

from analysis.loading.per_example import Absent, Examples, read
from sweep.config.schema import parse
from sweep.metrics import ModelOutputs

SOURCE = '''
from dataclasses import dataclass

from sweep.metrics import CorpusMetric


@dataclass(frozen=True, kw_only=True)
class LengthRatio(CorpusMetric):
    """Length of the predictions over length of the references."""

    percent: bool = False

    def statistics(self, outputs):
        sides = {"got": outputs.predictions, "wanted": outputs.references}
        return {name: [float(len(text)) for text in texts] for name, texts in sides.items()}

    def from_sums(self, sums):
        return (100 if self.percent else 1) * sums["got"] / sums["wanted"]
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/length_ratio.py").write_text(SOURCE)
    (tmp_path / "conf/metric").mkdir(parents=True)
    (tmp_path / "conf/metric/length_ratio.yaml").write_text("_target_: length_ratio.LengthRatio\npercent: true\n")
    return tmp_path


def composed(folder: Path, python_path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweep", "--config-dir", str(folder / "conf"), "--cfg", "job", "--resolve",
         "+metric@task.metrics.length=length_ratio", "task.score=length"],
        cwd=folder, env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_metric_from_outside_scores_and_is_resampled(folder: Path, monkeypatch: pytest.MonkeyPatch):
    shown = composed(folder, f"{ROOT}:{folder / 'package'}")
    assert shown.returncode == 0, shown.stderr
    monkeypatch.syspath_prepend(folder / "package")
    task = parse(OmegaConf.to_container(OmegaConf.create(shown.stdout))).task
    references = ["four", "five5", "sixsix", "sevenxx"]
    outputs = {"a": ["four", "fiv", "si", "seven"], "b": ["f", "fiv", "sixsix", "sevenxxx"]}
    scores, paths, tags = {}, {}, set()
    for run_id, predictions in outputs.items():
        rows = [{"index": index} for index in range(4)]
        evaluation = task.measured(ModelOutputs(references, predictions, [1.0] * 4, [1] * 4), rows)
        scores[run_id] = evaluation.scores["length"]
        tags.add(evaluation.facts["corpus.length"])
        paths[run_id] = folder / f"{run_id}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), paths[run_id])
    assert scores == {"a": pytest.approx(100 * 14 / 22), "b": pytest.approx(100 * 18 / 22)}
    (tag,) = tags
    assert isinstance(read(scores, "length", tag, paths.get), Absent)  # others may write the tag
    examples = read(scores, "length", tag, paths.get, packages=["length_ratio"])
    assert isinstance(examples, Examples)
    drawn_twice_and_never = np.array([[2.0, 0.0, 1.0, 1.0]])
    assert examples.scores(drawn_twice_and_never)[0] == pytest.approx([100 * 15 / 21, 100 * 16 / 21])

    monkeypatch.undo()
    del sys.modules["length_ratio"]
    missing = read(scores, "length", tag, paths.get, packages=["length_ratio"])
    assert isinstance(missing, Absent)
    assert "No module named 'length_ratio'" in missing.reason


def test_a_metric_that_cannot_be_imported_is_a_fault_of_the_config(folder: Path):
    refused = composed(folder, str(ROOT))
    assert refused.returncode == 2
    assert "task.metrics.length._target_ = length_ratio.LengthRatio" in refused.stderr
