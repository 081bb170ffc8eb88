"""The variance of scores over seeds, without the luck that all settings share at a seed.

Runs of equal seed have the same order of examples and the same initial weights where their shapes agree. The model of a
run's score is y_ks = m_k + c_s + u_ks: setting, shared luck of the seed, and the rest. A contrast of two settings that
ran the same seeds does not contain c_s, so its variance is that of u alone: of the residuals of the least-squares fit
of m and c (two-way analysis of variance; unbalanced where seeds differ: Searle, Linear Models, 1971, chapter 7).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.decision.score_noise import ScoreNoise
from analysis.decision.threshold import Rule

# Of the best score: the standard deviation over seeds that is assumed where nothing is known of it. Published reruns of
# Llama-3.2-3B on GSM8K differ by 1.1% of the score, small models on small data by several.
ASSUMED_SD = 0.03
_NEAR = 0.1  # of the best score: settings as near as this to it pool their variance over seeds
_FEWEST = 3  # settings with two seeds or more: with two, the shared luck costs more degrees of freedom than it saves


class TwoWay(NamedTuple):
    """The least-squares fit of y_ks = m_k + c_s. `own` is each setting's variance of u (NaN for one seed), `pooled`
    that of all, with `freedom` degrees of freedom; `shared` is the variance of c, at least 0, with `shared_freedom`."""

    own: np.ndarray
    pooled: float
    freedom: int
    shared: float
    shared_freedom: int


class SeedVariance(NamedTuple):
    """Of one run, per setting: `own` without the noise of single answers, `observed` as it is seen, with `freedom`
    degrees of freedom (infinite where assumed). `shared` is the variance of a seed's luck that all settings `paired`
    have in common, and that their own does not contain."""

    own: np.ndarray
    observed: np.ndarray
    freedom: float
    paired: np.ndarray
    shared: float = 0.0
    shared_freedom: float = np.inf

    def of_contrasts(self, noise: ScoreNoise, weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Settings × rivals: the variance of mean_k - weight · mean_j by seeds, the same as observed, and the part of
        both that is the shared luck: c² (1/S_k + weight²/S_j - 2 weight N_kj/(S_k S_j)), with N_kj seeds that both
        ran."""
        rivals, seeds = noise.rivals, noise.seeds.astype(float)
        ran = np.isfinite(noise.by_seed).astype(float)
        both = ran @ ran[rivals].T / (seeds[:, None] * seeds[None, rivals])
        share = np.where(self.paired, self.shared, 0.0)
        of_seed = (share / seeds)[:, None] + weight**2 * (share / seeds)[None, rivals]
        of_seed -= 2 * weight * both * self.shared * np.outer(self.paired, self.paired[rivals])
        of_seed = np.maximum(of_seed, 0.0)

        def of_pairs(of_a_run: np.ndarray) -> np.ndarray:
            of_a_mean = of_a_run / seeds
            return of_a_mean[:, None] + weight**2 * of_a_mean[None, rivals]

        return of_pairs(self.own) + of_seed, of_pairs(self.observed) + of_seed, of_seed


def two_way(by_seed: np.ndarray) -> TwoWay:
    """The fit of settings × seeds, NaN where there is no run. Balanced, with K settings and S seeds: the residuals are
    y_ks - y_k. - y_.s + y.., `freedom` is (K-1)(S-1), and a setting's own variance K/(K-1) · Σ r² / (S-1)."""
    ran = np.isfinite(by_seed)
    ran &= (ran.sum(axis=1) > 1)[:, None]  # a setting with one seed fits its mean, and says nothing of c
    count = ran.sum(axis=1, keepdims=True)
    y = np.where(ran, by_seed, 0.0)
    y = np.where(ran, y - y.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    # Of each run, the row of the seeds' indicators with the settings' means taken out: 1 at s, less 1/S_k at all seeds.
    normal = np.diag(ran.sum(axis=0).astype(float)) - (ran / np.maximum(count, 1)).T @ ran
    inverse = np.linalg.pinv(normal, hermitian=True)
    rank = int(np.linalg.matrix_rank(normal, hermitian=True)) if normal.size else 0
    luck = inverse @ y.sum(axis=0)
    of_setting = (ran @ luck)[:, None] / np.maximum(count, 1)
    residual = np.where(ran, y - luck[None, :] + of_setting, 0.0)
    freedom = int(ran.sum() - (count > 0).sum()) - rank
    squares, explained = float((residual**2).sum()), float(y.sum(axis=0) @ luck)
    pooled = squares / freedom if freedom > 0 else np.nan
    trace = float(np.trace(normal))
    shared = max(0.0, (explained - rank * pooled) / trace) if rank and freedom > 0 else 0.0
    # The expectation of Σ_s r² is σ² · Σ_s (1 - leverage).
    mean = ran / np.maximum(count, 1)
    of_mean = mean @ inverse
    leverage = 1 / np.maximum(count, 1) + np.diag(inverse) - 2 * of_mean + (of_mean * mean).sum(axis=1, keepdims=True)
    left = np.where(ran, 1 - leverage, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(left > 1e-9, (residual**2).sum(axis=1) / left, np.nan)
    return TwoWay(own, pooled, freedom, shared, rank)


def seed_variance(noise: ScoreNoise, rule: Rule) -> SeedVariance:
    """The larger of a setting's own variance and the pooled one of all settings near the best score: two or three seeds
    give a poor estimate for one setting. Assumed where no setting has two seeds."""
    scores, seeds, own = noise.scores, noise.seeds, noise.seed_sd**2
    best = scores.max() if rule.higher_is_better else scores.min()
    near = np.abs(scores - best) <= max(_NEAR * abs(best), 3 * abs(best - rule.score_threshold(best)))
    answers = np.zeros(len(scores)) if noise.answer_variance is None else noise.answer_variance
    apart = np.zeros(len(scores), dtype=bool)
    replicated = near & (seeds > 1)
    if replicated.sum() >= _FEWEST:
        fit = two_way(noise.by_seed[near])
        if fit.freedom > 1 and fit.shared_freedom and fit.pooled > 0:
            own = own.copy()
            own[near] = fit.own
            without = max(0.0, fit.pooled - float(np.nanmean(answers[replicated])))
            made = np.fmax(own - answers, without), np.fmax(own, fit.pooled)
            return SeedVariance(*made, fit.freedom, near, fit.shared, fit.shared_freedom)
    for pool in (replicated, seeds > 1):
        weight = (seeds[pool] - 1) / max(1, (seeds[pool] - 1).sum())
        if own[pool].any():
            seen, without = (own[pool] * weight).sum(), ((own - answers)[pool] * weight).sum()
            freedom = float((seeds[pool] - 1).sum())
            return SeedVariance(np.fmax(own - answers, max(0.0, without)), np.fmax(own, seen), freedom, apart)
    assumed = np.full(len(scores), (ASSUMED_SD * best) ** 2 if best else np.inf)
    if noise.covariance is not None and (seeds > 1).any():
        assumed = np.zeros(len(scores))  # replicates that agree to the last digit: the examples' noise remains
    return SeedVariance(assumed, assumed, np.inf, apart)
