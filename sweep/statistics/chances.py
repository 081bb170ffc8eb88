"""What draws of true scores say of a decision: chances, expected losses and intervals.

Per draw, the score to reach is weight · max(theta) - offset, and the right pick is the setting of least memory that
reaches it. A probability is the share of draws; an expected loss their mean (Berger 1985, chapter 4.4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MEMORY_TIE = 0.001  # share of the smaller figure: two that differ by less are equal, since batches differ by chance
_SURE = 0.95


class Target(NamedTuple):
    """The gain to reach: weight · best - offset."""

    weight: float = 0.99
    offset: float = 0.0

    def reach(self, scores: np.ndarray) -> np.ndarray:
        """Per draw."""
        return self.weight * scores.max(axis=1) - self.offset

    def allowed(self, scores: np.ndarray, scale: float) -> np.ndarray:
        """Per draw, by how much a setting may score below the best; 1% of the scale where it may not."""
        allowed = scores.max(axis=1) - self.reach(scores)
        return np.where(allowed > 0, allowed, 0.01 * scale)


class Chances(NamedTuple):
    """Per setting. `memory_overspent` is the expected share of the right pick's memory that using it costs in excess,
    where it reaches the threshold; `score_loss` by how much it is expected to miss the threshold, on the score's scale;
    `relative_loss` the same as a multiple of what is allowed. `by_prior` is p_reaches under either prior (2 ×
    settings). `low` and `high` are the ends of the central 95% interval."""

    p_reaches: np.ndarray
    p_best: np.ndarray
    p_right_pick: np.ndarray
    memory_overspent: np.ndarray
    score_loss: np.ndarray
    relative_loss: np.ndarray
    by_prior: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def loss(self, price: float) -> np.ndarray:
        """Expected loss of using each setting, in shares of the right pick's memory: missing the threshold by as much
        again as is allowed costs `price`."""
        return self.memory_overspent + price * self.relative_loss


def right_picks(scores: np.ndarray, memory: np.ndarray, target: Target) -> np.ndarray:
    """Whether each setting is the right pick, draws × settings. Settings of equal memory may both be; one without a
    memory figure (NaN) is none."""
    cost = np.where(_reaching(scores, target) & np.isfinite(memory), memory, np.inf)
    least = cost.min(axis=1, keepdims=True)
    return np.isfinite(cost) & (cost <= least * (1 + MEMORY_TIE))


def chances(scores: np.ndarray, memory: np.ndarray, target: Target, scale: float) -> Chances:
    """Of draws × settings of gains."""
    reaches = _reaching(scores, target)
    best = scores.max(axis=1, keepdims=True)
    right = right_picks(scores, memory, target)
    least = np.where(right, memory, np.inf).min(axis=1, keepdims=True)
    known = np.isfinite(least) & np.isfinite(memory)
    ratio = np.divide(memory, least, out=np.ones_like(scores), where=known & (least > 0))
    missed = np.maximum(target.reach(scores)[:, None] - scores, 0.0)
    low, high = np.quantile(scores, [(1 - _SURE) / 2, (1 + _SURE) / 2], axis=0)
    return Chances(
        p_reaches=reaches.mean(axis=0),
        p_best=(scores >= best).mean(axis=0),
        p_right_pick=right.mean(axis=0),
        memory_overspent=(np.maximum(ratio - 1, 0.0) * reaches).mean(axis=0),
        score_loss=missed.mean(axis=0),
        relative_loss=(missed / target.allowed(scores, scale)[:, None]).mean(axis=0),
        by_prior=np.stack([half.mean(axis=0) for half in np.array_split(reaches, 2)]),
        low=low,
        high=high,
    )


def _reaching(scores: np.ndarray, target: Target) -> np.ndarray:
    return scores >= target.reach(scores)[:, None]
