"""A study at chance level recommends nothing; the warnings of the pick's runs stand next to the pick."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import pipeline
from analysis.decision.chance import nothing_learnt
from analysis.loading.study import Study
from analysis.reporting import mlflow_publish, study_comparison, writer

GUESS, EXAMPLES = 0.5, 400  # two standard errors of a coin's share of heads: 0.05
MOVED = {"train/first_loss": 0.7, "train/last_loss": 0.3, "train/loss_change_stderr": 0.01}
STILL = {"train/first_loss": 0.7, "train/last_loss": 0.695, "train/loss_change_stderr": 0.01}


def runs(*rows: tuple[str, float, dict], warnings: str | None = None) -> pd.DataFrame:
    """Runs of (setting, score, losses), each with the next seed."""
    known = {"variant": "v", "outcome": "ok", "reason": "", "running": False, "conditions_hash": "", "conditions": "{}",
             "metric": "accuracy", "direction": "maximize", "eval/majority_baseline": GUESS, "eval/examples": EXAMPLES,
             "warnings": warnings}  # fmt: skip
    return pd.DataFrame(
        [{"run_id": str(i), "seed": i, "setting": s, "score": score, "max_memory_allocated": 1e9 + i, **known, **m}
         for i, (s, score, m) in enumerate(rows)]
    )  # fmt: skip


def test_two_standard_errors_of_a_coin_are_chance():
    """By simulation: a model that guesses is taken for one that has learnt in about 2.5% of the studies."""
    heads = np.random.default_rng(0).binomial(EXAMPLES, GUESS, 400) / EXAMPLES
    learnt = [not nothing_learnt(runs(("a", float(share), MOVED)), "accuracy", True) for share in heads]
    assert 0.005 < np.mean(learnt) < 0.05
    assert nothing_learnt(runs(("a", 0.60, MOVED)), "accuracy", True) == ""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [("a", 0.52, MOVED), ("b", 0.54, MOVED)],
            "the accuracy of each setting is at chance level (the same answer for",
        ),
        ([("a", 0.52, MOVED), ("b", 0.7, STILL)], "or its training loss did not decrease"),
        ([("a", 0.7, STILL), ("b", 0.8, STILL)], "the training loss of no setting decreased (the best, b, has 0.8000)"),
        ([("a", 0.52, MOVED), ("a", 0.57, MOVED)], "at chance level"),  # the mean over seeds
        ([("a", 0.52, MOVED), ("b", 0.7, MOVED)], ""),
        ([("a", 0.7, STILL), ("a", 0.7, MOVED)], ""),
        ([("a", 0.7, {}), ("b", 0.5, MOVED)], ""),  # nothing is known of a's loss
    ],
)
def test_a_study_has_learnt_nothing_if_no_setting_has(rows: list, words: str):
    found = nothing_learnt(runs(*rows), "accuracy", True)
    assert words in found
    assert bool(found) == bool(words)


def test_runs_without_a_baseline_or_losses_prove_nothing():
    assert nothing_learnt(runs(("a", 0.5, {})).drop(columns=["eval/majority_baseline"]), "accuracy", True) == ""
    assert nothing_learnt(runs(("a", 0.5, {})).head(0), "accuracy", True) == ""


def test_a_report_of_a_study_at_chance_recommends_nothing(tmp_path: Path):
    rows = [("big", 0.54, STILL), ("small", 0.539, STILL)]
    made = pipeline.build(Study("s", None, {}, "", runs(*rows)), 0.99, None, "max_memory_allocated")
    writer.write(made, tmp_path / "out")
    answer = json.loads((tmp_path / "out/recommendation.json").read_text())
    assert (answer["selected"], answer["best"], answer["p_right_pick"]) == (None, "big", None)
    assert answer["answer"].startswith("Nothing was learnt, so nothing is recommended")
    assert "study.learning_rate_multiplier=0.1,1,10" in answer["answer"]
    page, chart = (tmp_path / "out/report.html").read_text(), (tmp_path / "out/score_against_memory.svg").read_text()
    for text in (page, chart, pipeline.summary(made, tmp_path), mlflow_publish.note(made), mlflow_publish.title(made)):
        assert "Use " not in text
        assert "is the smallest" not in text
        assert "→" not in text
    assert "No setting learnt anything" in chart
    assert mlflow_publish._tags(made)["selected"] == ""
    both = study_comparison.StudyComparison(made, made)
    assert both.answer == "s picks nothing and s picks nothing: in a study without a pick, nothing was learnt."


def test_warnings_of_the_pick_stand_next_to_it():
    rows = [("big", 0.70, MOVED), ("small", 0.695, MOVED), ("other", 0.4, MOVED)]
    doubts = "the answer is the same for all 60 validation examples\nthe loss did not move: 1 in the first quarter"
    table = runs(*rows, warnings=doubts)
    table.loc[2, "warnings"] = "memory grows"
    made = pipeline.build(Study("s", None, {}, "", table), 0.98, None, "max_memory_allocated")
    assert made.decision.selected == "big"
    assert made.confidence.startswith(
        "Doubtful: of big, the answer is the same for all 60 validation examples (1 of 1 runs); the loss did not move "
        "(1 of 1 runs)."
    )
    assert "memory grows" not in made.confidence
