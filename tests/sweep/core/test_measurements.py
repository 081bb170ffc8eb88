"""The table of measurements: it has every key that a run logs, and no other key."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
from conftest import ROOT, compose

from sweep.core import measurements
from sweep.core.measurements import FACTS, MEASUREMENTS, matches
from sweep.core.record import Outcome, Record, is_memory

SAMPLES = {"phase": "train", "metric": "accuracy", "category": "gradients", "figure": "train_max_allocated_bytes",
           "library": "torch", "variable": "PYTORCH_ALLOC_CONF"}  # fmt: skip
NAMES = (*SAMPLES.values(), "allocated")
PREFIX = re.compile(r"(memory|eval|train|data|time|weights)/[a-z{]")
CONSTANTS = {name: value for name, value in vars(measurements).items() if name.isupper() and isinstance(value, str)}


def strings() -> set[str]:
    """All strings in sweep/, a placeholder of an f-string as {}; also the constants of the table that it uses."""
    found = set()
    for path in sorted((ROOT / "sweep").rglob("*.py")):
        if path == ROOT / "sweep/core/measurements.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Name | ast.Attribute):
                found.add(CONSTANTS.get(node.id if isinstance(node, ast.Name) else node.attr, ""))
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
    return found


STRINGS = strings()


@pytest.mark.parametrize("row", [*MEASUREMENTS, *FACTS], ids=lambda row: row.key)
def test_every_key_of_the_table_occurs_in_the_source(row: measurements.Measurement):
    sample = re.sub("<([a-z]+)>", lambda match: SAMPLES[match[1]], row.key)
    written = [text for text in STRINGS if "{}" in text[1:] or text.endswith("_")]
    patterns = [re.escape(text).replace(r"\{\}", ".+") + (".+" if text.endswith("_") else "") for text in written]
    assert sample in STRINGS or any(re.fullmatch(pattern, sample) for pattern in patterns)


def test_every_key_in_the_source_is_in_the_table():
    """Also the keys of CUDA, which no run on this machine may log."""
    keys = [text for text in STRINGS if PREFIX.match(text) and not re.search(r"[^\w/{}]", text)]
    assert len(keys) > 40
    for text in keys:
        count = text.count("{}")
        filled = (text.replace("{}", "%s") % names for names in itertools.product(NAMES, repeat=count))
        assert any(matches(key + ("x_bytes" if key.endswith("_") else "")) for key in filled), text


def test_the_first_row_that_matches_is_the_meaning():
    assert matches("eval/examples").unit == "count"
    assert matches("eval/rougeL").key == "eval/<metric>"
    assert matches("memory/sum_over_ranks_train_max_allocated_bytes").key == "memory/sum_over_ranks_<figure>"
    assert matches("corpus.bleu", FACTS).key == "corpus.<metric>"
    assert matches("scores") is None


def test_memory_figures_are_those_in_bytes_of_memory():
    for row in MEASUREMENTS:
        key = re.sub("<([a-z]+)>", lambda match: SAMPLES[match[1]], row.key)
        of_device = key.startswith(("memory/", "max_memory", "peak_memory")) and row.unit == "bytes"
        assert is_memory(key) == (of_device and "growth" not in key), key


@pytest.mark.slow
def test_a_run_logs_only_keys_of_the_table(toy: list[str], tmp_path: Path):
    from sweep.core.reporter import silent
    from sweep.core.run_request import RunRequest
    from sweep.training_run import prepare, run_training

    config = compose(*toy, "train.max_steps=12")
    prepare(config, silent)
    request = RunRequest(config=config, record=Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED),
                         folder=str(tmp_path))  # fmt: skip
    record = run_training(request, silent)
    assert record.outcome is Outcome.OK, record.reason
    assert {"score", "max_memory_allocated", "train/first_loss", "eval/exact_match"} <= record.measurements.keys()
    assert [key for key in record.measurements if matches(key) is None] == []
    assert [key for key in record.facts if matches(key, FACTS) is None] == []
