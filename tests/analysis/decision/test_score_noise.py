"""The noise of scores against simulation and formulas; corpus scores; what would settle; how stable a pick is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from analysis.decision.noninferiority import verdicts
from analysis.decision.pick_stability import stability
from analysis.decision.sample_size import required_sample_size
from analysis.decision.score_noise import estimate_noise, from_examples
from analysis.decision.threshold import Rule
from analysis.loading.per_example import Absent, Examples
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


def test_the_required_sample_size_gives_a_verdict():
    """Studies of the size that was asked for get a verdict about as often as predicted."""
    rng = np.random.default_rng(3)

    def one(seeds: int) -> tuple[str, object]:
        scores = [0.80 + rng.normal(0, 0.01, seeds), 0.77 + rng.normal(0, 0.01, seeds)]
        rows = [(f"s{i}", score) for i, runs in enumerate(scores) for score in runs]
        frame = pd.DataFrame(rows, columns=["setting", "score"]).assign(run_id=range(2 * seeds))
        noise = estimate_noise(frame, Absent("none"))
        found = verdicts(noise, Rule(0.99))
        return str(found.verdict[1]), required_sample_size(noise, found)[1]

    asked = [sample_size for verdict, sample_size in (one(3) for _ in range(300)) if verdict == "inconclusive"]
    needed = int(np.median([s.seeds for s in asked if s.seeds]))
    assert 3 < needed < 12
    settled = np.mean([one(needed)[0] == "fails" for _ in range(300)])
    assert 0.6 < settled <= 1.0


def test_a_single_seed_asks_for_a_first_look():
    frame = pd.DataFrame({"setting": ["a", "b"], "score": [0.8, 0.79], "run_id": ["a", "b"]})
    noise = estimate_noise(frame, Absent("none"))
    assert required_sample_size(noise, verdicts(noise, Rule()))[1].first_look


def small(memory: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"setting": ["a", "b"], "memory": memory, "trainable_params": [1.0, 1.0]})


def test_pick_stability_is_the_chance_of_the_same_selection():
    """b, the larger one, is picked when a's one example of two is drawn less often: 1 resample of 4."""
    runs = pd.DataFrame({"run_id": ["a", "b"], "setting": ["a", "b"], "score": [0.5, 0.5]})
    examples = Examples.of({"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])})
    found = stability(runs, small([1.0, 2.0]), "a", Rule(0.99), examples, resamples=4000)
    assert found is not None
    assert found.over == "examples"
    assert found.share == pytest.approx(0.75, abs=0.03)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_stability_over_seeds_and_over_counts():
    runs = pd.DataFrame({"run_id": list("abcd"), "setting": list("aabb"), "score": [0.1, 0.9, 0.5, 0.5]})
    found = stability(runs, small([1.0, 2.0]), "a", Rule(0.99), Absent("none"), resamples=4000)
    assert found is not None
    assert found.over == "seeds"
    assert found.share == pytest.approx(0.75, abs=0.03)  # a misses the threshold where its bad seed is drawn twice
    one = pd.DataFrame({"run_id": ["a", "b"], "setting": ["a", "b"], "score": [0.5, 0.9]})
    assert stability(one, small([1.0, 2.0]), "b", Rule(0.99), Absent("none")) is None
    counted = stability(one.assign(n_examples=2), small([1.0, 2.0]), "b", Rule(1.0), Absent("none"), resamples=4000)
    # a needs at least as many right answers of 2: P(a ≥ b) with a ~ B(2, 0.5), b ~ B(2, 0.9)
    chance = 0.25 * 1 + 0.5 * (0.01 + 0.18) + 0.25 * 0.01
    assert counted is not None
    assert counted.share == pytest.approx(1 - chance, abs=0.03)
