"""The luck of a seed that settings share: closed forms, least squares by brute force, and real runs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.decision.noninferiority import verdicts
from analysis.decision.score_noise import from_examples
from analysis.decision.seed_variance import two_way
from analysis.decision.threshold import Rule
from benchmarks.decision import real_runs


def test_equal_seeds_are_the_textbook_two_way_analysis():
    y = np.random.default_rng(0).normal(size=(5, 4)) + np.array([0.0, 2.0, -1.0, 3.0])
    settings, seeds = y.shape
    r = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    between = settings * ((y.mean(0) - y.mean()) ** 2).sum() / (seeds - 1)
    found = two_way(y)
    assert found.freedom == 12
    assert found.pooled == pytest.approx((r**2).sum() / 12)
    assert found.own == pytest.approx(settings / (settings - 1) * (r**2).sum(1) / (seeds - 1))
    assert found.shared == pytest.approx((between - found.pooled) / settings)


@pytest.mark.parametrize("rng_seed", range(5))
def test_unequal_seeds_are_least_squares(rng_seed: int):
    """Against a regression on indicators of settings and seeds, and its hat matrix."""
    rng = np.random.default_rng(rng_seed)
    y = rng.normal(size=(6, 5))
    y[rng.random(y.shape) < 0.3] = np.nan
    rows = [(k, s) for k in range(6) if np.isfinite(y[k]).sum() > 1 for s in range(5) if np.isfinite(y[k, s])]
    design = np.array([[float(k == i) for i in range(6)] + [float(s == i) for i in range(5)] for k, s in rows])
    values = np.array([y[row] for row in rows])
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    hat = np.diag(design @ np.linalg.pinv(design))
    found = two_way(y)
    assert found.freedom == len(rows) - np.linalg.matrix_rank(design)
    assert found.pooled == pytest.approx((residual**2).sum() / found.freedom)
    for k in {k for k, _ in rows}:
        own = [i for i, (setting, _) in enumerate(rows) if setting == k]
        assert found.own[k] == pytest.approx((residual[own] ** 2).sum() / (1 - hat[own]).sum())


def test_the_shared_and_the_own_variance_are_found_again():
    """The mean of estimates over 2,000 studies, of unequal seeds."""
    rng = np.random.default_rng(1)
    ran = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    fits = []
    for _ in range(2000):
        y = 2.0 * rng.normal(size=4) + rng.normal(size=(4, 4))
        fits.append(two_way(np.where(ran, y, np.nan)))
    assert np.mean([fit.pooled for fit in fits]) == pytest.approx(1.0, rel=0.1)
    assert np.mean([fit.shared for fit in fits]) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("ran", ["the same seeds", "nested seeds", "other seeds"])
def test_the_variance_of_a_difference_is_that_of_repeated_studies(ran: str):
    """Four settings whose seeds share three quarters of their variance; the third contrast is looked at."""
    rng = np.random.default_rng(2)
    which = {
        "the same seeds": [[0, 1, 2]] * 4,
        "nested seeds": [[0, 1, 2, 3, 4], [0, 1], [0, 1, 2], [0, 1, 2]],
        "other seeds": [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]],
    }[ran]
    run_of = np.repeat(np.arange(4), [len(seeds) for seeds in which])
    seed_of = np.concatenate(which)
    differences, estimates = [], []
    for _ in range(600):
        luck = np.sqrt(3) * rng.normal(size=12) + 100
        values = (luck[seed_of] + rng.normal(size=len(run_of)))[:, None] + np.zeros((1, 2))
        found = verdicts(from_examples(values, run_of, list("abcd"), seed_of=seed_of), Rule(1.0)).contrasts
        differences.append(found.value[0, 1])
        estimates.append(found.seed_variance[0, 1])
    # The larger of a setting's own variance and the pooled one counts: high by up to a half.
    assert 0.95 <= np.mean(estimates) / np.var(differences) < 1.6


def test_real_runs_settle_nearly_twice_as_often_and_never_wrongly():
    runs = real_runs.load()
    found = real_runs.measure(runs, 3, 1200, parts=40)
    assert found["paired_right"] >= 1.8 * found["unpaired_right"] > 0
    assert found["paired_wrong"] == 0
    assert list(verdicts(real_runs.noise_of(runs.right), Rule()).verdict) == ["meets", "fails", "fails", "fails"]
