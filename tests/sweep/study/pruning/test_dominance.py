"""Dominance pruning, against its definition."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.metrics.standard_error import standard_error
from sweep.study.pruning.dominance import Point, Run, dominated


def run(scores: list[float], memory: float = 2.0, error: float = 0.1, name: str = "run") -> Run:
    return Run(name, [Point(10 * (i + 1), score, error) for i, score in enumerate(scores)], memory)


def test_a_run_stops_if_one_that_needs_no_more_memory_is_clearly_better():
    good = run([0.5, 0.6, 0.7], memory=2.0, name="good")
    reason = dominated(run([0.1, 0.1]), [good])
    assert reason is not None
    assert "good needs no more memory" in reason
    assert "step 20" in reason
    assert dominated(run([0.1, 0.1]), [run([0.5, 0.6], memory=2.1)]) is None  # needs more
    assert dominated(run([0.1]), [good]) is None  # warm-up
    assert dominated(run([0.45, 0.5]), [good]) is None  # within the noise


def test_one_standard_error_is_needed_twice_and_two_standard_errors_once():
    error = 0.1  # of the difference: 0.1414
    assert dominated(run([0.5, 0.3]), [run([0.5, 0.65])]) is None  # mean of the window 0.175, one evaluation
    assert dominated(run([0.3, 0.3]), [run([0.5, 0.5])], higher_is_better=True) is not None
    assert dominated(run([0.3, 0.3], error=2 * error), [run([0.5, 0.5], error=2 * error)]) is None


def test_a_lower_loss_is_better():
    assert dominated(run([2.0, 2.0]), [run([1.0, 1.0])], higher_is_better=False) is not None
    assert dominated(run([1.0, 1.0]), [run([2.0, 2.0])], higher_is_better=False) is None


def test_only_equal_steps_are_compared():
    other = Run("other", [Point(7, 0.9, 0.1), Point(14, 0.9, 0.1)], 1.0)
    assert dominated(run([0.1, 0.1]), [other]) is None
    assert dominated(run([0.1, 0.1, 0.1]), [run([0.9, 0.9])]) is None  # it ended before


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_a_run_never_stops_because_of_an_equal_run(scores: list[float]):
    assert dominated(run(scores), [run(scores), run(scores, memory=1.0)]) is None


def test_equal_runs_seldom_stop():
    """Two runs with the same learning curve are compared 20 times, each on its own 50 examples: one in six stops by
    chance. In a study both runs use the same examples, and differ less."""
    chance = random.Random(0)
    stopped = 0
    for _ in range(300):
        curves = [
            [sum(chance.random() < 0.5 for _ in range(50)) / 50 for _ in range(20)]
            for _ in range(2)
        ]  # fmt: skip
        a, b = ([Point(i, p, math.sqrt(max(p * (1 - p), 0.02) / 50)) for i, p in enumerate(c)] for c in curves)
        stopped += any(dominated(Run("a", a[:k], 1.0), [Run("b", b, 1.0)]) for k in range(1, 20))
    assert stopped / 300 < 0.2


def test_the_standard_error_of_a_fraction_of_right_answers():
    assert standard_error([1.0] * 25 + [0.0] * 25) == pytest.approx(math.sqrt(0.25 / 49))
    assert standard_error([0.0] * 50) == pytest.approx(0.02)  # the weight of one example
    assert standard_error([5.0, 7.0]) == pytest.approx(1.0)
    assert standard_error([0.5]) == math.inf
