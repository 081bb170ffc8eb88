"""The posterior of a study (`sweep.statistics`): chances, expected losses and intervals of its settings, and what
further runs would be worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analysis.decision.score_noise import ScoreNoise
from analysis.decision.threshold import Rule
from sweep.statistics import next_runs, score_posterior
from sweep.statistics.chances import Chances, Target, chances
from sweep.statistics.next_runs import Plan
from sweep.statistics.score_posterior import Draws, Observed

_ALL = 64  # settings: of more, those far below the best do not compete
_FAR = (0.1, 8.0)  # below the best by this share of it, and by as many standard errors
_MOST_SETTINGS = 12  # for which the value of further runs is computed
_SLIGHT = 0.01
_SURE = 0.95


class Posterior(NamedTuple):
    """`chances` and `draws` are per setting of the noise, as gains (scores are negated where lower is better).
    `competing` are the indices of the settings of `observed`; the others are far below the best."""

    chances: Chances
    draws: np.ndarray
    observed: Observed
    competing: np.ndarray
    of_competing: Draws
    memory: np.ndarray
    rule: Rule

    def threshold_of(self, k: int) -> float:
        """The largest share of the best score (with a margin: the least distance) that setting k reaches with a chance
        of 95%."""
        best = self.draws.max(axis=1)
        if self.rule.margin is not None:
            return float(np.quantile(best - self.draws[:, k], _SURE))
        ratio = self.draws[:, k] / best if self.rule.higher_is_better else best / self.draws[:, k]
        return float(np.quantile(ratio, 1 - _SURE))

    def p_reaches(self, k: int, rule: Rule) -> float:
        """The chance that setting k reaches another threshold."""
        reach = _target(rule).reach(self.draws)
        return float((self.draws[:, k] >= reach).mean())

    def shared_luck(self) -> float | None:
        """The share of the variance over seeds that settings have in common, of what is not noise of single answers;
        None where no seed was run by two settings with two seeds."""
        drawn = self.of_competing
        if not drawn.kappa.any():
            return None
        shared, own = drawn.kappa**2, (drawn.sigma**2).mean(axis=1)
        return float((shared / (shared + own)).mean())

    def after(self, plan: Plan) -> float:
        """The expected chance that the likeliest pick is right after further runs (`sweep.statistics.next_runs`)."""
        found = self.chances
        weight = (found.p_best + found.p_right_pick)[self.competing]
        some = np.sort(np.argsort(-weight, kind="stable")[:_MOST_SETTINGS])
        some = some[weight[some] >= _SLIGHT]
        observed, drawn = self.observed, self.of_competing
        part = Observed(
            observed.by_seed[some], observed.covariance[np.ix_(some, some)], observed.answers[some], observed.scale
        )
        drawn = Draws(drawn.scores[:, some], drawn.sigma[:, some], drawn.kappa)
        memory = self.memory[self.competing[some]]
        value = next_runs.expected_chance(part, drawn, memory, _target(self.rule), plan)
        return max(value, float(found.p_right_pick.max()))


def posterior(noise: ScoreNoise, rule: Rule, memory: np.ndarray) -> Posterior:
    """Of the settings of `noise`, whose `memory` is in bytes, NaN where it is not known."""
    sign = 1.0 if rule.higher_is_better else -1.0
    gains = sign * noise.scores
    scale = max(abs(float(gains.max())), 10 * rule.offset) or float(np.abs(gains).max()) or 1.0
    competing = _competing(noise, gains, scale)
    observed = Observed(
        sign * noise.by_seed[competing],
        _covariance(noise, competing),
        np.nan_to_num(np.zeros(len(gains)) if noise.answer_variance is None else noise.answer_variance)[competing],
        scale,
    )
    drawn = score_posterior.draw(observed)
    scores = drawn.scores
    if len(competing) < len(gains):
        scores = _with_the_others(noise, gains, competing, drawn)
    return Posterior(chances(scores, memory, _target(rule), scale), scores, observed, competing, drawn, memory, rule)


def _target(rule: Rule) -> Target:
    return Target(rule.weight, rule.offset)


def _competing(noise: ScoreNoise, gains: np.ndarray, scale: float) -> np.ndarray:
    """Indices of all settings if they are few, else of those near the best; at most as many as have a covariance."""
    if len(gains) <= _ALL:
        return np.arange(len(gains))
    error = np.sqrt(_variance(noise))
    below = gains.max() - gains
    near = (below <= _FAR[0] * scale) | (below <= _FAR[1] * error)
    return np.intersect1d(np.flatnonzero(near), noise.rivals)


def _variance(noise: ScoreNoise) -> np.ndarray:
    """Of each setting's mean; where a setting has one seed, that over seeds is the median of the others."""
    over_seeds = noise.seed_sd**2
    known = over_seeds[np.isfinite(over_seeds)]
    over_seeds = np.where(np.isfinite(over_seeds), over_seeds, np.median(known) if len(known) else 0.0)
    of_examples = np.zeros(len(over_seeds)) if noise.own_variance is None else noise.own_variance
    return over_seeds / noise.seeds + of_examples


def _with_the_others(noise: ScoreNoise, gains: np.ndarray, competing: np.ndarray, drawn: Draws) -> np.ndarray:
    """Draws of all settings: those that do not compete are normal around their means."""
    rng = np.random.default_rng(0)
    scores = gains + np.sqrt(_variance(noise)) * rng.normal(size=(len(drawn.scores), len(gains)))
    others = np.setdiff1d(np.arange(len(gains)), competing)
    scores[:, others] = np.minimum(scores[:, others], drawn.scores.min(axis=1, keepdims=True))
    scores[:, competing] = drawn.scores
    return scores


def _covariance(noise: ScoreNoise, some: np.ndarray) -> np.ndarray:
    """Of the means of some settings over examples, with one more example on which two differ, half of it to each; zeros
    where nothing is known of examples. Of right and wrong answers that were only counted, settings share a part."""
    if noise.own_variance is None or noise.covariance is None or noise.n_examples is None:
        return np.zeros((len(some), len(some)))
    covariance = noise.covariance[np.ix_(some, np.searchsorted(noise.rivals, some))]
    share = score_posterior.NOT_SHARED if noise.why_not else 1.0
    return share * covariance + np.eye(len(some)) * (noise.unit / noise.n_examples) ** 2 / 2
