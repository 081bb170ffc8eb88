"""The Pareto front against its definition, pair by pair."""

from __future__ import annotations

import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from analysis.decision.pareto import on_front

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


def dominated(point: tuple[float, float], others: list[tuple[float, float]], higher: bool) -> bool:
    def better(a: float, b: float) -> bool:
        return a > b if higher else a < b

    cost, score = point
    return any((c <= cost and (better(s, score) or s == score)) and (c < cost or better(s, score)) for c, s in others)


@given(POINTS, st.booleans())
def test_equals_the_definition(points: list[tuple[int, int]], higher: bool):
    frame = pd.DataFrame(points, columns=["cost", "score"], dtype=float)
    found = on_front(frame["cost"], frame["score"], higher)
    assert found.tolist() == [not dominated(point, points, higher) for point in points]


@given(POINTS)
def test_order_does_not_matter(points: list[tuple[int, int]]):
    frame = pd.DataFrame(points, columns=["cost", "score"], dtype=float)
    backwards = frame.iloc[::-1]
    found = on_front(backwards["cost"], backwards["score"], True).sort_index()
    assert found.tolist() == on_front(frame["cost"], frame["score"], True).tolist()


def test_a_missing_value_is_never_on_the_front():
    frame = pd.DataFrame({"cost": [1.0, math.nan, 2.0], "score": [math.nan, 9.0, 1.0]})
    assert on_front(frame["cost"], frame["score"], True).tolist() == [False, False, True]
