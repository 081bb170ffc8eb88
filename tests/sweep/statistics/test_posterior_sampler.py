"""The samplers against closed forms and enumeration; chances by a loop; further runs by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sweep.statistics import next_runs, score_posterior, seed_luck
from sweep.statistics.chances import Target, chances
from sweep.statistics.next_runs import Plan, expected_chance
from sweep.statistics.score_posterior import CEILING, TWO_SIDED, Draws, Observed, Prior


def closed_form(prior: Prior, seen: float, variance: float, at: np.ndarray) -> np.ndarray:
    """P(theta_1 - theta_2 > at): a mixture over both groups, whose weights have a Dirichlet prior."""
    base, total = prior.base, prior.base.sum()
    weight = (np.outer(base, base) + np.diag(base)) / (total * (total + 1))
    centre = -(prior.centre[:, None] - prior.centre[None, :])
    width = prior.width[:, None] ** 2 + prior.width[None, :] ** 2
    weight = weight * stats.norm.pdf(seen, centre, np.sqrt(width + variance))
    mean = (centre * variance + seen * width) / (width + variance)
    sd = np.sqrt(width * variance / (width + variance))
    return np.array([(weight * stats.norm.sf(x, mean, sd)).sum() for x in at]) / weight.sum()


@pytest.mark.parametrize("prior", [CEILING, TWO_SIDED], ids=["ceiling", "two-sided"])
@pytest.mark.parametrize("seen", [0.004, 0.02])
def test_two_settings_have_the_posterior_of_the_closed_form(prior: Prior, seen: float):
    sd = 0.006
    means = np.tile([1.0, 1.0 - seen], (256, 1))
    noise = np.broadcast_to(np.eye(2) * sd**2 / 2, (256, 2, 2))
    found = score_posterior.sample(means, lambda _: noise, prior, 200, np.random.default_rng(0))
    at = np.array([-0.005, 0.0, 0.005, 0.01])
    difference = (found[..., 0] - found[..., 1]).reshape(-1, 1)
    assert (difference > at).mean(axis=0) == pytest.approx(closed_form(prior, seen, sd**2, at), abs=0.02)


def test_spreads_over_seeds_have_the_posterior_of_the_enumeration():
    """Two settings with two seeds: the differences between the seeds are normal, given sigma and kappa."""
    by_seed, answers = np.array([[0.80, 0.82], [0.79, 0.80]]), np.array([1e-5, 2e-5])
    differences = by_seed[:, 1] - by_seed[:, 0]
    together = np.exp(seed_luck._PAIR)[:, None, None] * np.exp(seed_luck._GIVEN)[:, :, None]
    together = (together * np.exp(seed_luck._GIVEN)[:, None, :]).sum(axis=0)
    own = seed_luck.SIGMA**2
    total, sigma, kappa = 0.0, 0.0, 0.0
    for value, weight in zip(seed_luck.KAPPA, seed_luck._KAPPA_PRIOR, strict=True):
        a, b, c = (2 * (own[:, None] + answers[0] + value**2), 2 * (own[None, :] + answers[1] + value**2), 2 * value**2)
        determinant = a * b - c**2
        square = b * differences[0] ** 2 + a * differences[1] ** 2 - 2 * c * differences[0] * differences[1]
        mass = weight * together * np.exp(-0.5 * square / determinant) / np.sqrt(determinant)
        total += mass.sum()
        sigma += (mass * np.log(seed_luck.SIGMA)[:, None]).sum()
        kappa += mass.sum() * np.log(value)
    found = seed_luck.draw(by_seed, answers, 512, 60, np.random.default_rng(0))
    assert np.log(found.sigma[..., 0]).mean() == pytest.approx(sigma / total, abs=0.08)
    assert np.log(found.kappa).mean() == pytest.approx(kappa / total, abs=0.15)


def test_luck_that_no_two_settings_can_share_is_none():
    apart = np.array([[0.8, 0.81, np.nan, np.nan], [np.nan, np.nan, 0.8, 0.82]])
    assert not seed_luck.draw(apart, np.zeros(2), 8, 4, np.random.default_rng(0)).kappa.any()


def test_chances_are_shares_of_draws():
    """A loop over 200 draws of four settings, the last without a memory figure."""
    rng = np.random.default_rng(0)
    scores, memory = 0.8 + 0.02 * rng.normal(size=(200, 4)), np.array([3.0, 1.0, 2.0, np.nan])
    found = chances(scores, memory, Target(0.98), scale=0.8)
    reached, right, spent, missed = (np.zeros((200, 4)) for _ in range(4))
    for i, row in enumerate(scores):
        bar = 0.98 * max(row)
        able = [k for k in range(3) if row[k] >= bar]
        least = min((memory[k] for k in able), default=np.inf)
        for k in range(4):
            reached[i, k], missed[i, k] = row[k] >= bar, max(bar - row[k], 0)
            right[i, k] = k in able and memory[k] == least
            spent[i, k] = max(memory[k] / least - 1, 0) if k in able else 0
    assert found.p_reaches == pytest.approx(reached.mean(axis=0))
    assert found.p_right_pick == pytest.approx(right.mean(axis=0))
    assert found.memory_overspent == pytest.approx(spent.mean(axis=0))
    assert found.score_loss == pytest.approx(missed.mean(axis=0))
    assert found.relative_loss == pytest.approx((missed / (0.02 * scores.max(axis=1, keepdims=True))).mean(axis=0))
    assert found.loss(3.0) == pytest.approx(found.memory_overspent + 3 * found.relative_loss)


def observed(means: list[float] | np.ndarray, seeds: int = 2) -> Observed:
    own = np.array([[3e-5, 1e-5, 1e-5], [1e-5, 4e-5, 1e-5], [1e-5, 1e-5, 3e-5]])
    return Observed(np.repeat(np.asarray(means)[:, None], seeds, axis=1), own, np.full(3, 2e-5), 1.0)


def test_no_further_run_changes_nothing_and_very_many_tell_all():
    seen, memory, target = observed([1.0, 0.992, 0.988]), np.array([3.0, 2.0, 1.0]), Target()
    drawn = score_posterior.draw(seen)
    now = chances(drawn.scores, memory, target, 1.0).p_right_pick.max()
    means, _ = next_runs._results(seen, drawn, np.arange(50), Plan(), np.random.default_rng(0))
    assert means == pytest.approx(np.tile(seen.means, (50, 1)))
    assert expected_chance(seen, drawn, memory, target, Plan()) == pytest.approx(now, abs=0.06)
    some = expected_chance(seen, drawn, memory, target, Plan(4, 4.0))
    assert now < some < expected_chance(seen, drawn, memory, target, Plan(4000, 1e6))
    assert expected_chance(seen, drawn, memory, target, Plan(4000, 1e6)) > 0.93


@pytest.mark.parametrize("plan", [Plan(3), Plan(0, 4.0), Plan(2, 3.0)])
def test_the_results_of_further_runs_vary_as_their_noise(plan: Plan):
    """Scores seen at first, then with further runs, from one truth: the covariance of what is seen in the end."""
    rng = np.random.default_rng(1)
    truth, sigma, kappa, count = np.array([1.0, 0.99, 0.98]), np.array([3e-3, 5e-3, 4e-3]), 4e-3, 4000
    seen = observed(truth)
    noise = seen.covariance + np.diag(sigma**2 / 2) + kappa**2 / 2
    first = truth + rng.normal(size=(count, 3)) @ np.linalg.cholesky(noise).T
    drawn = Draws(truth[None], sigma[None], np.array([kappa]))
    ends, expected = [], None
    for means in first:
        end, expected = next_runs._results(observed(means), drawn, np.array([0]), plan, rng)
        ends.append(end[0])
    assert np.cov(np.array(ends).T) == pytest.approx(expected[0], abs=0.07 * expected[0].max())
