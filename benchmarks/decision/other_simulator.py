"""Simulated studies with known truth, unlike those of `benchmarks/decision/calibration.py` in each part.

Difficulty has two clusters (easy and hard examples) instead of one normal; gaps to the best are of six kinds; 4 to 24
settings; log-normal spreads over seeds (median 0.5% of the best score) that differ between settings; in half of the
studies, settings share a part of a seed's luck. Binary truth is exact: the probability of a right answer is a mixture
of two probits. Continuous scores have heavy tails or are skewed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import ndtr

from benchmarks.decision.calibration import Simulated

Rng = np.random.Generator


def _clusters(rng: Rng, k: int) -> np.ndarray:
    return np.where(rng.random(k) < rng.uniform(0.2, 0.8), rng.uniform(0, 0.008, k), rng.uniform(0.02, 0.2, k))


def _by_rank(rng: Rng, k: int) -> np.ndarray:
    return rng.uniform(0.01, 0.2) * 2.0 ** (-np.arange(k) * rng.uniform(0.3, 1.5)) + rng.uniform(0, 0.003, k)


GAPS: Mapping[str, Callable[[Rng, int], np.ndarray]] = {
    "exponential": lambda rng, k: rng.exponential(np.exp(rng.uniform(np.log(0.003), np.log(0.08))), k),
    "two clusters": _clusters,
    "by rank": _by_rank,
    "normal": lambda rng, k: np.abs(rng.normal(0, np.exp(rng.uniform(np.log(0.002), np.log(0.05))), k)),
    "one best": lambda rng, k: rng.uniform(0.0102, 0.03, k),
    "ladder": lambda rng, k: np.arange(k) * rng.uniform(0.002, 0.01),
}


def simulate(rng: Rng, seeds: int | None = None, examples: int | None = None) -> Simulated:
    """One study, every setting with the same seeds."""
    k = int(rng.choice([4, 4, 4, 6, 8, 8, 12, 16, 24]))
    n = examples or int(np.exp(rng.uniform(np.log(200), np.log(5000))))
    seeds = seeds or int(rng.choice([1, 2, 2, 3, 3, 5]))
    best, shape = rng.uniform(0.3, 0.95), str(rng.choice(list(GAPS)))
    gaps = GAPS[shape](rng, k)
    if shape != "one best":
        gaps = gaps - gaps.min()
    gaps[rng.integers(k)] = 0.0
    truth = best * (1 - np.minimum(gaps, 0.9))
    spread = np.exp(rng.normal(np.log(0.005), 0.9)) * best * np.exp(rng.normal(0, 0.35, k))
    spread = np.minimum(spread, 0.1 * best)
    shared = rng.choice([0.0, 0.0, 0.5, 0.9])
    luck = np.sqrt(shared) * rng.normal(size=seeds) + np.sqrt(1 - shared) * rng.normal(size=(k, seeds))
    if rng.random() < 0.6:
        return Simulated(_binary(rng, truth, spread, luck, n), truth, f"binary, {shape}")
    return Simulated(_continuous(rng, truth, spread, luck, n), truth, f"continuous, {shape}")


def _binary(rng: Rng, truth: np.ndarray, spread: np.ndarray, luck: np.ndarray, n: int) -> np.ndarray:
    easy, apart = rng.uniform(0.2, 0.8), rng.uniform(0.5, 4)
    widths, own, kept = rng.uniform(0.2, 1, 2), rng.uniform(0.1, 1.0), rng.uniform(0.2, 0.95)
    is_easy = rng.random(n) < easy
    hard = np.where(is_easy, widths[0] * rng.normal(size=n), apart + widths[1] * rng.normal(size=n))

    def mean(level: np.ndarray, latent: np.ndarray) -> np.ndarray:
        variance = 1 + own**2 + latent**2
        low = ndtr(level / np.sqrt(variance + widths[0] ** 2))
        return easy * low + (1 - easy) * ndtr((level - apart) / np.sqrt(variance + widths[1] ** 2))

    latent = np.zeros_like(truth)
    for _ in range(4):  # the latent spread that gives the wanted one
        level = _solve(lambda at, width=latent: mean(at, width), truth)
        slope = (mean(level + 1e-4, latent) - mean(level - 1e-4, latent)) / 2e-4
        latent = np.minimum(spread / slope, 3.0)
    level = _solve(lambda at: mean(at, latent), truth)
    scores = []
    for k in range(len(truth)):
        fixed = own * rng.normal(size=n) + np.sqrt(kept) * rng.normal(size=n)
        answer = np.sqrt(1 - kept) * rng.normal(size=(luck.shape[1], n))
        scores.append((level[k] - hard - fixed + latent[k] * luck[k][:, None] + answer > 0).astype(float))
    return np.array(scores)


def _solve(mean: Callable[[np.ndarray], np.ndarray], truth: np.ndarray) -> np.ndarray:
    """The level at which an increasing mean is the truth, by bisection."""
    low, high = np.full_like(truth, -12.0), np.full_like(truth, 16.0)
    for _ in range(50):
        middle = (low + high) / 2
        below = mean(middle) < truth
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


def _continuous(rng: Rng, truth: np.ndarray, spread: np.ndarray, luck: np.ndarray, n: int) -> np.ndarray:
    size, own, single = rng.uniform(0.1, 0.4) * truth.max(), rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.6)
    heavy = rng.random() < 0.5

    def noise(*shape: int) -> np.ndarray:
        if heavy:
            return rng.standard_t(3, shape) / np.sqrt(3)
        return (rng.gamma(2.0, 1.0, shape) - 2) / np.sqrt(2)

    k, seeds = luck.shape
    common = noise(n) + own * noise(k, 1, n)
    return (
        truth[:, None, None] + spread[:, None, None] * luck[..., None] + size * (common + single * noise(k, seeds, n))
    )
