"""The prediction of a run is part of its record, and is compared with the measurement."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.charts import memory_prediction
from sweep.core.record import Outcome, Record
from sweep.memory.prediction import Prediction
from sweep.memory.prediction_metrics import ERROR, PREDICTED, with_error, with_prediction

PREDICTION = Prediction(
    tier="formula",
    allocated_bytes=110,
    peak_at="backward",
    breakdown={"frozen_weights": 60, "activations": 50},
    relative_band=0.03,
    assumptions={"longest_micro_batch": "2 × 8 tokens"},
)
RUN = Record(variant="a", setting="a", seed=0, outcome=Outcome.OK, measurements={"score": 1.0}, facts={"device": "x"})


def test_a_run_keeps_its_prediction_and_how_far_it_was_off():
    begun = with_prediction(RUN, PREDICTION)
    assert begun.measurements[PREDICTED] == 110
    assert begun.measurements["memory/breakdown/frozen_weights_bytes"] == 60
    assert begun.measurements["score"] == 1.0
    assert begun.facts["device"] == "x"
    assert "2 × 8 tokens" in begun.facts["memory_prediction"]
    ended = with_error(begun.ended(Outcome.OK, max_memory_allocated=100))
    assert ended.measurements[ERROR] == pytest.approx(0.1)


def test_without_either_there_is_no_error():
    assert with_prediction(RUN, None) is RUN
    assert ERROR not in with_error(RUN.ended(Outcome.OK, max_memory_allocated=100)).measurements
    assert ERROR not in with_error(with_prediction(RUN, PREDICTION)).measurements


def runs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "setting": ["a", "a", "b", "c", "d"],
            "variant": ["a", "a", "b", "c", "d"],
            "seed": [0, 1, 0, 0, 0],
            "outcome": ["ok", "ok", "ok", "oom", "ok"],
            "max_memory_allocated": [100.0, 104.0, 50.0, 80.0, 70.0],
            "memory/predicted_bytes": [102.0, 102.0, 50.0, 400.0, float("nan")],
        }
    )


def test_the_chart_s_errors_are_those_of_ended_runs_that_were_predicted():
    marks = memory_prediction.data(runs())
    assert marks["setting"].tolist() == ["b", "a", "a"]
    assert marks["error"].tolist() == pytest.approx([0.0, 0.02, 102 / 104 - 1])
    assert memory_prediction.words(marks) == "Predictions are off by 1.3% on average, +2.0% at worst"


def test_nothing_predicted_is_nothing_to_draw():
    assert memory_prediction.data(runs().drop(columns="memory/predicted_bytes")).empty


def test_it_is_drawn():
    figure = memory_prediction.draw(memory_prediction.data(runs()))
    axes = figure.axes[0]
    assert axes.get_xlabel() == "measured peak memory while training [B]"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["b", "a"]
