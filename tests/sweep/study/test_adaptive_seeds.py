"""Adaptive replicates: which settings are dropped, and how often this is wrong."""

from __future__ import annotations

import numpy as np

from sweep.study.adaptive_seeds import ERROR, FIRST, in_contention

RULE = {"threshold": 0.99, "higher_is_better": True, "maximum": 5}


def test_every_setting_gets_its_first_seeds():
    assert in_contention({"a": [0.9], "b": [0.1], "c": []}, {}, **RULE) == {"a", "b", "c"}


def test_a_setting_that_clearly_fails_gets_no_more_seeds():
    scores = {"best": [0.90, 0.91], "near": [0.895, 0.905], "far": [0.3, 0.31]}
    assert in_contention(scores, {"best": 3, "near": 2, "far": 1}, **RULE) == {"best", "near"}


def test_a_setting_that_a_smaller_one_clearly_beats_gets_no_more_seeds():
    scores = {"small": [0.9000, 0.9001], "large": [0.8950, 0.8951], "other": [0.5, 0.5001]}
    assert in_contention(scores, {"small": 1, "large": 2, "other": 3}, **RULE) == {"small"}
    assert in_contention(scores, {"small": 3, "large": 2, "other": 1}, **RULE) == {"small", "large"}


def test_a_lower_loss_is_better():
    scores = {"best": [1.0, 1.001], "far": [2.0, 2.001]}
    assert in_contention(scores, {}, threshold=0.99, higher_is_better=False, maximum=5) == {"best"}


def test_the_best_is_never_dropped():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = {str(i): list(rng.normal(size=2)) for i in range(5)}
        best = max(scores, key=lambda name: np.mean(scores[name]))
        assert best in in_contention(scores, {str(i): float(i) for i in range(5)}, **RULE)


def test_settings_that_meet_the_threshold_are_seldom_dropped():
    """Six settings are truly equal, so that to drop one is an error. The rate of such studies is ERROR at most."""
    rng = np.random.default_rng(1)
    studies, wrong = 1000, 0
    for _ in range(studies):
        values = rng.normal(0.8, 0.01, size=(6, 5))
        memory = {str(i): float(i) for i in range(6)}
        dropped = False
        for seeds in range(FIRST, 6):
            scores = {str(i): list(values[i, :seeds]) for i in range(6)}
            dropped = dropped or len(in_contention(scores, memory, **RULE)) < 6
        wrong += dropped
    assert wrong / studies <= ERROR
