"""Verdicts against closed forms, their symmetries, and simulated studies with known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.decision import noninferiority
from analysis.decision.score_noise import ScoreNoise, estimate_noise, from_examples
from analysis.decision.threshold import Rule
from analysis.loading.per_example import Absent
from benchmarks.decision import shapes
from benchmarks.decision.calibration import measure, simulate


def means_only(*runs_of_setting: list[float]) -> ScoreNoise:
    rows = [(f"s{i}", score) for i, runs in enumerate(runs_of_setting) for score in runs]
    frame = pd.DataFrame(rows, columns=["setting", "score"])
    frame["run_id"] = frame.index.astype(str)
    return estimate_noise(frame, Absent("none"))


def test_two_settings_over_seeds_are_a_pooled_t_test():
    """With one rival and equal weights (a margin of 0), the p-value is that of the textbook's two-sample test."""
    one, two = [0.81, 0.83, 0.80], [0.78, 0.79, 0.76]
    found = noninferiority.verdicts(means_only(one, two), Rule(margin=0.0))
    # Where a setting's own variance is larger than the pooled one, its own counts; these two are equal.
    assert np.var(one, ddof=1) == pytest.approx(np.var(two, ddof=1))
    expected = stats.ttest_ind(two, one, alternative="less").pvalue
    assert found.p_fails[1] == pytest.approx(expected / noninferiority.ASIDE)
    assert found.p_meets[0] == pytest.approx(expected)


def test_examples_of_one_seed_with_no_noise_between_seeds_are_a_paired_t_test():
    """Two identical seeds leave the examples' noise alone: the p-value is that of the paired test on differences."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=500)
    one, two = hard + 0.3 * rng.normal(size=500), hard + 0.3 * rng.normal(size=500) - 0.08
    values = np.stack([one, one, two, two])
    found = noninferiority.verdicts(from_examples(values, np.array([0, 0, 1, 1]), ["a", "b"]), Rule(margin=0.0))
    expected = stats.ttest_rel(two, one, alternative="less").pvalue
    assert found.p_fails[1] == pytest.approx(
        expected / noninferiority.ASIDE, rel=0.15
    )  # one more example that differs is added
    unpaired = stats.ttest_ind(two, one, alternative="less").pvalue
    assert expected < unpaired / 2  # the example's own difficulty cancels


@given(
    st.lists(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=4), min_size=2, max_size=6),
    st.floats(0.9, 1.0),
)
def test_a_lower_is_better_metric_is_its_mirror(runs: list[list[float]], threshold: float):
    """score ≤ best / t with s is -s ≥ (1/t) · (-best): the same verdicts as for negated contrasts."""
    noise = means_only(*runs)
    found = noninferiority.verdicts(noise, Rule(threshold, higher_is_better=False))
    value = found.contrasts.value
    scores, rivals = noise.scores, noise.scores[noise.rivals]
    assert np.allclose(value, rivals[None, :] / threshold - scores[:, None])
    assert set(found.verdict) <= {"meets", "fails", "not shown"}
    assert not ((found.p_meets < 0.05) & (found.p_fails < 0.05)).any()


def test_the_best_is_not_taken_for_granted():
    """Two that look the same, with much noise: neither is called the best, though one has the better mean."""
    found = noninferiority.verdicts(means_only([0.70, 0.90], [0.71, 0.88]), Rule(0.99))
    assert list(found.verdict) == ["not shown", "not shown"]


def test_one_seed_gives_a_verdict_only_to_what_is_far():
    found = noninferiority.verdicts(means_only([0.80], [0.78], [0.10]), Rule(0.99))
    assert list(found.verdict) == ["not shown", "not shown", "fails"]
    assert list(noninferiority.verdicts(means_only([0.80]), Rule(0.99)).verdict) == ["meets"]


def test_equal_scores_to_the_last_digit_do_not_give_certainty():
    """Equal answers on 20 examples do not show that two settings are within 1%; on 2,000 they do."""
    few, many = np.ones((4, 20)), np.ones((4, 2000))
    run_of = np.array([0, 0, 1, 1])
    assert set(noninferiority.verdicts(from_examples(few, run_of, ["a", "b"]), Rule(0.99)).verdict) == {"not shown"}
    assert set(noninferiority.verdicts(from_examples(many, run_of, ["a", "b"]), Rule(0.99)).verdict) == {"meets"}


def test_a_far_off_setting_without_spread_does_not_make_the_others_look_sure():
    """Two collapsed settings with no variance at all are not pooled with those near the threshold."""
    near = [[0.80, 0.86], [0.79, 0.84]]
    alone = noninferiority.verdicts(means_only(*near), Rule(0.99))
    among = noninferiority.verdicts(means_only(*near, [0.0, 0.0], [0.0, 0.0]), Rule(0.99))
    assert np.allclose(alone.contrasts.variance, among.contrasts.variance[:2, :2])
    assert list(among.verdict[:2]) == list(alone.verdict)


def test_verdicts_are_rarely_false():
    """A tenth of the benchmark. Its threshold of 0.95 is where power is, so that errors would show."""
    rng = np.random.default_rng(1)
    figures = measure([simulate(rng) for _ in range(100)], Rule(0.95))
    assert figures["called_meets"] > 100
    assert figures["false_meets_share"] <= 0.05
    assert figures["false_fails_share"] <= 0.05
    assert figures["power_meets"] > 0.4


@pytest.mark.parametrize("shape", ["12, all others just below", "2 seeds, spread 0.1% or 2%", "2 settings"])
def test_verdicts_are_rarely_false_on_hard_shapes(shape: str):
    """Where a verdict is false most easily, by another simulator: at most 5%, and the noise of 60 studies."""
    rng = np.random.default_rng(0)
    counts = shapes.counts([shapes.study(rng, shapes.SHAPES[shape]) for _ in range(60)],
                                    Rule(0.99))  # fmt: skip
    for verdict in ("meets", "fails"):
        assert counts[f"falsely_{verdict}"] <= stats.binom.ppf(0.99, counts[f"called_{verdict}"], 0.05)
    assert counts["called_meets"] > 5


def test_what_is_not_in_doubt_costs_nothing():
    """Ten settings that collapsed change no p-value of the others, and no verdict."""
    near = [[0.80, 0.801, 0.799], [0.798, 0.799, 0.797], [0.70, 0.701, 0.699]]
    alone = noninferiority.verdicts(means_only(*near), Rule(0.99))
    among = noninferiority.verdicts(means_only(*near, *[[0.1, 0.101, 0.102]] * 10), Rule(0.99))
    assert np.allclose(alone.p_meets, among.p_meets[:3])
    assert np.allclose(alone.p_fails, among.p_fails[:3])
    assert list(alone.verdict) == list(among.verdict[:3]) == ["meets", "meets", "fails"]
