"""The literal rule against a reading of its own, its ties, and what it refuses."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.decision.aggregate import settings
from analysis.decision.selection import decide
from sweep.core.errors import UserError


def table(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["setting", "score", "memory", "trainable_params"])
    return frame.assign(outcomes=[{"ok": 1}] * len(frame), reason="")


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 9)), min_size=1, max_size=9),
    st.sampled_from([0.9, 0.99, 1.0]),
    st.booleans(),
)
def test_the_smallest_that_meets_is_selected(pairs: list[tuple[float, int]], threshold: float, higher: bool):
    frame = table(*((str(i), score, float(memory), 1.0) for i, (score, memory) in enumerate(pairs)))
    decision = decide(frame, threshold=threshold, higher_is_better=higher)
    best = max(s for s, _ in pairs) if higher else min(s for s, _ in pairs)
    good = [(s, m) for s, m in pairs if (s >= threshold * best if higher else s <= best / threshold)]
    score, memory = pairs[int(decision.selected)]
    assert memory == min(m for _, m in good)
    assert score == (max if higher else min)(s for s, m in good if m == memory)
    assert pairs[int(decision.best)][0] == best
    assert decision.settings["meets"].sum() == len(good)
    assert decision.settings["selected"].sum() == 1


def test_ties_go_to_the_better_score_then_to_fewer_parameters_then_to_the_name():
    assert decide(table(("a", 0.90, 5, 1), ("b", 0.95, 5, 9)), threshold=0.9).selected == "b"
    assert decide(table(("a", 0.95, 5, 9), ("b", 0.95, 5, 1))).selected == "b"
    assert decide(table(("b", 0.95, 5, 1), ("a", 0.95, 5, 1))).selected == "a"


def test_settings_without_a_result_keep_their_row_and_are_not_selected():
    decision = decide(table(("small", math.nan, math.nan, 1), ("large", 0.5, 9, 1)))
    assert decision.selected == "large"
    assert decision.settings["meets"].tolist() == [False, True]


def test_a_share_of_nothing_has_no_meaning_but_a_margin_has():
    frame = table(("a", 0.0, 9, 1), ("b", -0.2, 1, 1))
    with pytest.raises(UserError, match="margin"):
        decide(frame)
    assert decide(frame, margin=0.3).selected == "b"
    assert decide(frame, margin=0.1).selected == "a"


def test_nothing_to_decide_lists_the_outcomes():
    frame = table(("a", math.nan, math.nan, 1)).assign(outcomes=[{"oom": 2}], reason="no room")
    with pytest.raises(UserError, match=r"a: 2 oom \(no room\)"):
        decide(frame)


def runs(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame([{"variant": "v", "reason": "", "max_memory_allocated": 1.0, **row} for row in rows])


def test_settings_are_means_over_ok_replicates_and_the_latest_run_of_a_seed_counts():
    frame = settings(
        runs(
            {"setting": "s", "seed": 0, "outcome": "failed", "score": math.nan, "reason": "first try"},
            {"setting": "s", "seed": 0, "outcome": "ok", "score": 0.4},
            {"setting": "s", "seed": 1, "outcome": "ok", "score": 0.8},
            {"setting": "t", "seed": 0, "outcome": "oom", "score": math.nan, "reason": "too large"},
        ),
        "max_memory_allocated",
    ).set_index("setting")
    assert frame.loc["s", "score"] == pytest.approx(0.6)
    assert frame.loc["s", "outcomes"] == {"ok": 2}
    assert frame.loc["s", "score_sd"] == pytest.approx(0.4 / 2**0.5)
    assert math.isnan(frame.loc["t", "score"])
    assert (frame.loc["t", "n_ok"], frame.loc["t", "outcomes"], frame.loc["t", "reason"]) == (
        0,
        {"oom": 1},
        "too large",
    )
