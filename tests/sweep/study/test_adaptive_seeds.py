"""Adaptive replicates: which settings are dropped, and how often this is wrong."""

from __future__ import annotations

import numpy as np

from benchmarks.decision import adaptive
from sweep.study.adaptive_seeds import in_contention

RULE = {"threshold": 0.99, "higher_is_better": True}


def by_seed(**scores: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(found)) for name, found in scores.items()}


def test_every_setting_gets_its_first_seeds():
    assert in_contention(by_seed(a=[0.9], b=[0.1], c=[]), {}, **RULE) == {"a", "b", "c"}
    assert in_contention(by_seed(a=[], b=[]), {}, **RULE) == {"a", "b"}


def test_a_setting_that_clearly_fails_gets_no_more_seeds():
    scores = by_seed(best=[0.90, 0.91], near=[0.895, 0.905], far=[0.3, 0.31])
    assert in_contention(scores, {"best": 3, "near": 2, "far": 1}, **RULE) == {"best", "near"}


def test_a_setting_that_a_smaller_one_clearly_beats_gets_no_more_seeds():
    scores = by_seed(small=[0.9000, 0.9001], large=[0.8950, 0.8951], other=[0.5, 0.5001])
    assert in_contention(scores, {"small": 1, "large": 2, "other": 3}, **RULE) == {"small"}
    assert in_contention(scores, {"small": 3, "large": 2, "other": 1}, **RULE) == {"large"}  # it reaches 99%


def test_the_best_stays_while_the_threshold_that_it_sets_matters():
    """The two smaller ones are near the threshold; the best, the largest, is never the right pick if either is."""
    scores = by_seed(best=[0.905, 0.915], one=[0.899, 0.903], two=[0.900, 0.902])
    assert in_contention(scores, {"best": 3, "one": 2, "two": 1}, **RULE) == {"best", "one", "two"}


def test_a_lower_loss_is_better():
    scores = by_seed(best=[1.0, 1.001], far=[2.0, 2.001])
    assert in_contention(scores, {}, threshold=0.99, higher_is_better=False) == {"best"}


def test_few_examples_keep_more_settings():
    scores = by_seed(best=[0.900, 0.901], near=[0.86, 0.861])
    memory = {"best": 2, "near": 1}
    assert in_contention(scores, memory, **RULE) == {"best"}
    assert in_contention(scores, memory, **RULE, n_examples=100) == {"best", "near"}


def test_the_right_pick_is_seldom_dropped():
    """A part of the benchmark."""
    rng = np.random.default_rng(1)
    found = np.array([adaptive.run(rng) for _ in range(10)])
    assert found[:, 0].mean() <= 0.1
    assert found[:, 2].mean() < 1
