"""The noise of scores against simulation and formulas and of corpus scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from analysis.decision.noninferiority import verdicts
from analysis.decision.score_noise import estimate_noise, from_examples
from analysis.decision.threshold import Rule
from analysis.loading.per_example import Examples
from sweep.metrics import CorpusMetric, ModelOutputs


def test_the_variance_of_a_difference_is_that_of_repeated_studies():
    """1,000 studies of two settings, seeds and examples both drawn anew: what one study estimates, on average."""
    rng = np.random.default_rng(0)
    seeds, n = 4, 60
    differences, estimates = [], []
    for _ in range(1000):
        shared = rng.normal(0, 0.5, n)
        own = rng.normal(0, 0.2, (2, 1, n))
        values = shared + own + rng.normal(0, 0.05, (2, seeds, 1)) + rng.normal(0, 0.3, (2, seeds, n))
        found = verdicts(from_examples(values.reshape(2 * seeds, n), np.repeat([0, 1], seeds), ["a", "b"]), Rule(1.0))
        differences.append(found.contrasts.value[0, 1])
        estimates.append(found.contrasts.variance[0, 1])
    # The larger of own and pooled variance is taken, and never less than none: a little high, never low.
    assert 1.0 <= np.mean(estimates) / np.var(differences) < 1.35


@dataclass(frozen=True, kw_only=True)
class Ratio(CorpusMetric):
    """An average over parts of examples, such as tokens."""

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        raise NotImplementedError

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        return sums["numerator"] / sums["denominator"]


def test_a_resampled_mean_has_the_variance_of_a_mean():
    """The bootstrap of a corpus metric that is a mean in disguise gives the analytic covariance."""
    rng = np.random.default_rng(1)
    values = rng.random((4, 400))
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": ["x", "x", "y", "y"], "score": values.mean(axis=1)})
    statistics = np.stack([values, np.ones_like(values)], axis=2)
    names = ("numerator", "denominator")
    by_sums = estimate_noise(runs, Examples(list("abcd"), 400, statistics=statistics, names=names, corpus=Ratio()))
    exact = estimate_noise(runs, Examples.of(dict(zip("abcd", values, strict=True))))
    assert np.allclose(by_sums.scores, exact.scores)
    assert by_sums.own_variance == pytest.approx(exact.own_variance, rel=0.15)
