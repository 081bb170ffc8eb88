"""A whole run in this process: what its record states of memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import compose

from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.training_run import run_training

pytestmark = pytest.mark.slow


def run(folder: Path, *overrides: str) -> Record:
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED)
    return run_training(RunRequest(config=compose(*overrides), record=record, folder=str(folder)), silent)


def test_evaluation_does_not_carry_the_optimizer_s_state(toy: list[str], tmp_path: Path):
    """AdamW's two moments would make evaluation need three times the weights."""
    short = ["variant=fft", "train.max_steps=2", "train.eval_batch_size=1", "task.data.n_validation=2"]
    measured = run(tmp_path, *toy, *short).measurements
    weights = 4 * measured["total_params"]
    assert measured["memory/train_max_allocated_bytes"] > 4 * weights
    assert measured["memory/eval_max_allocated_bytes"] < 1.3 * weights
