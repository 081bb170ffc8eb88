"""Tests of each setting: whether it `meets` or `fails`, or neither is shown, whichever setting is truly the best.

A setting k meets the threshold t when all its contrasts c = score_k − t · score_j with settings j are at least 0. Their
noise is that of examples, paired, and of seeds, pooled. The observed best is the best partly by chance, so nothing here
depends on which setting looks best. docs/decision.md explains each step, with its sources, and its error rates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.decision.score_noise import ScoreNoise
from analysis.decision.seed_variance import seed_variance
from analysis.decision.threshold import Rule

MEETS, FAILS, NOT_SHOWN = "meets", "fails", "not shown"
LEVEL = 0.05
ASIDE = 0.95


class Contrasts(NamedTuple):
    """Matrices over settings k (rows) and rivals j (columns)."""

    value: np.ndarray  # positive where k is good enough against j
    example_variance: np.ndarray
    seed_variance: np.ndarray  # what seeds add to the examples' noise
    observed_variance: np.ndarray  # of run means as they are seen, with the noise of single answers
    seed_df: float  # degrees of freedom of the observed variance
    shared_variance: np.ndarray  # the part of both that is luck of a seed that settings share
    shared_df: float

    @property
    def variance(self) -> np.ndarray:
        return self.example_variance + self.seed_variance


class Verdicts(NamedTuple):
    """Per setting, in the noise's order."""

    verdict: np.ndarray
    p_meets: np.ndarray
    p_fails: np.ndarray
    contrasts: Contrasts


def verdicts(noise: ScoreNoise, rule: Rule, level: float = LEVEL) -> Verdicts:
    """The verdict on every setting of the noise."""
    count = len(noise.scores)
    made = contrasts(noise, rule)
    if noise.own_variance is None:
        level /= 2  # a part of the noise is not seen
    if count == 1:
        none = np.zeros(1)
        return Verdicts(np.array([MEETS]), none, none + 1, made)
    freedom = _satterthwaite(made, noise.n_examples)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.nan_to_num(made.value / np.sqrt(made.variance))
    below = stats.t.sf(quotient, freedom)  # of seeing this where k is not good enough against j
    above = stats.t.cdf(quotient, freedom)
    itself = (noise.rivals, np.arange(len(noise.rivals)))
    below[itself], above[itself] = 0.0, 1.0
    p_meets = below.max(axis=1)  # an intersection-union test (Berger 1982)
    p_fails = _simes(above, count)
    meets, fails = _rejected(p_meets, level, known=1), _rejected(p_fails, level)
    verdict = np.where(meets, MEETS, np.where(fails, FAILS, NOT_SHOWN))
    return Verdicts(verdict, p_meets, p_fails, made)


def contrasts(noise: ScoreNoise, rule: Rule) -> Contrasts:
    """Estimate and variance of every contrast."""
    gain = noise.scores if rule.higher_is_better else -noise.scores
    weight, rivals = rule.weight, noise.rivals
    value = gain[:, None] - weight * gain[None, rivals] + rule.offset
    by_seeds = seed_variance(noise, rule)
    seed_part, seen, shared = by_seeds.of_contrasts(noise, weight)
    rest = (by_seeds.freedom, shared, by_seeds.shared_freedom)
    own, covariance = noise.own_variance, noise.covariance
    if own is None or covariance is None or noise.n_examples is None:
        return Contrasts(value, np.zeros_like(seed_part), seed_part, seen, *rest)
    example_part = own[:, None] + weight**2 * own[None, rivals] - 2 * weight * covariance
    # One more example on which the two differ: none in a sample does not mean none at all.
    example_part = np.maximum(example_part, 0.0) + (noise.unit / noise.n_examples) ** 2
    return Contrasts(value, example_part, seed_part, seen, *rest)


def _satterthwaite(made: Contrasts, n_examples: int | None) -> np.ndarray:
    """Degrees of freedom of each contrast's variance (Satterthwaite 1946)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        examples = made.example_variance**2 / max(1, (n_examples or 2) - 1)
        seeds = (made.observed_variance - made.shared_variance) ** 2 / made.seed_df
        shared = made.shared_variance**2 / made.shared_df
        freedom = made.variance**2 / (examples + seeds + shared)
    return np.where(np.isfinite(freedom) & (freedom > 0), freedom, 1e9)


def _simes(p: np.ndarray, count: int) -> np.ndarray:
    """Each row's p-values joined (Simes 1986): is any of its hypotheses false? Those above ASIDE are not. Of `count`
    settings all that are not columns, since they cannot be the best, count as rivals that may be."""
    order = np.arange(1, p.shape[1] + 1)
    kept = (p <= ASIDE).sum(axis=1, keepdims=True)
    hidden = count - p.shape[1]
    joined = np.where(order <= kept, np.sort(p, axis=1) * (kept + hidden) / order, ASIDE).min(axis=1)
    return np.minimum(1.0, joined / ASIDE)


def _rejected(p: np.ndarray, level: float, known: int = 0) -> np.ndarray:
    """Which hypotheses are rejected at this false discovery rate (Benjamini, Krieger & Yekutieli 2006; Ellis, Pecanka &
    Goeman 2020); `known` of them are false for sure."""
    rejected = p <= ASIDE
    count = int(rejected.sum())
    if not count:
        return rejected
    adjusted = stats.false_discovery_control(p[rejected] / ASIDE)
    level /= 1 + level
    perhaps_true = max(1, count - known)
    perhaps_true = max(1, min(perhaps_true, count - int((adjusted <= level * count / perhaps_true).sum())))
    rejected[rejected] = adjusted <= level * count / perhaps_true
    return rejected
