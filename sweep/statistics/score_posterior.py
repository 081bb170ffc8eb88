"""The posterior of the true scores of a study's settings: the mean over seeds and over examples like these.

All scores are gains (higher is better: scores are negated where lower is better), divided by the best observed one.

    means | theta ~ N(theta, V + diag(sigma_k² / S_k) + kappa² N_kj / (S_k S_j))
    theta_k ~ N(A - centre_g, width_g²), group g of k with weights pi ~ Dirichlet(base), A flat

V is the covariance of the settings' means when the examples are drawn anew, S_k the seeds of k, N_kj those that k and j
share; sigma and kappa are draws of `sweep.statistics.seed_luck`. Scores of settings of one study tend to lie together,
and how closely is learnt from them (partial pooling: Efron & Morris 1975, JASA 70:311; a mixture of normals as in
Stephens 2017, Biostatistics 18:275). There are two priors, with half of the chains each, since their errors are
opposite: CEILING lets many settings lie just below the best, TWO_SIDED lets the best stand alone.

Gibbs sampling: theta and A jointly by perturbation and one solve (Papandreou & Yuille 2010); pi and g by their
conditionals. sigma and kappa do not depend on theta, since the m_k of their model are flat: a new draw enters each
_EVERY steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from sweep.statistics import seed_luck
from sweep.statistics.draws import categories

_EVERY = 5
_FAR = 1.0  # standard deviation of A around the mean of the scores: flat, on this scale
_SEED = 0
# Of the variance of right and wrong answers to the same examples: what settings do not share (embedded benchmark).
NOT_SHARED = 0.5


class Prior(NamedTuple):
    """Of the gaps between settings, per group, as shares of the best score."""

    centre: np.ndarray
    width: np.ndarray
    base: np.ndarray


CEILING = Prior(
    np.array([0.0, 0.0025, 0.007, 0.015, 0.032, 0.07, 0.16, 0.45]),
    np.array([0.0008, 0.0015, 0.003, 0.006, 0.013, 0.03, 0.07, 0.2]),
    np.array([0.2, 0.3, 0.6, 0.9, 1.0, 0.8, 0.4, 0.2]),
)
TWO_SIDED = Prior(
    np.zeros(7),
    np.array([0.0007, 0.002, 0.005, 0.012, 0.03, 0.08, 0.25]),
    np.array([0.2, 0.3, 0.4, 0.5, 0.5, 0.3, 0.1]),
)


class Observed(NamedTuple):
    """Gains of the settings on their own scale. `by_seed`: settings × seeds, NaN where there is no run; `covariance`:
    of the settings' means over examples drawn anew, single answers included (zeros where it is not known); `answers`:
    the part of a run's variance that is single answers; `scale`: what gaps and spreads are shares of."""

    by_seed: np.ndarray
    covariance: np.ndarray
    answers: np.ndarray
    scale: float

    @property
    def means(self) -> np.ndarray:
        return np.nanmean(self.by_seed, axis=1)

    @property
    def seeds(self) -> np.ndarray:
        return np.isfinite(self.by_seed).sum(axis=1)

    @property
    def shared(self) -> np.ndarray:
        """N_kj / (S_k S_j)."""
        ran = np.isfinite(self.by_seed).astype(float)
        return ran @ ran.T / np.outer(self.seeds, self.seeds)


class Draws(NamedTuple):
    """Draws × settings, on the scale of the gains: true `scores`, `sigma`; `kappa` per draw. The first half of them is
    by CEILING, the second by TWO_SIDED."""

    scores: np.ndarray
    sigma: np.ndarray
    kappa: np.ndarray


def draw(observed: Observed, *, chains: int | None = None, steps: int = 60) -> Draws:
    """As many draws as chains × steps, after as many steps that do not count. By default, the chains are fewer for many
    settings. The Monte Carlo error of a probability is about 0.01 to 0.02."""
    with threadpool_limits(1, "blas"):  # threads cost more than they save on small matrices, above all on busy cores
        return _draw(observed, chains, steps)


def _draw(observed: Observed, chains: int | None, steps: int) -> Draws:
    rng = np.random.default_rng(_SEED)
    count, scale = len(observed.by_seed), observed.scale
    chains = chains or (128 if count <= 16 else 64 if count <= 64 else 32)
    half, times = chains // 2, 2 * steps // _EVERY
    luck = seed_luck.draw(observed.by_seed / scale, observed.answers / scale**2, 2 * half, times, rng)
    means, parts = np.broadcast_to(observed.means / scale, (half, count)), []
    for number, prior in enumerate((CEILING, TWO_SIDED)):
        some = slice(number * half, (number + 1) * half)
        sigma, kappa = luck.sigma[:, some], luck.kappa[:, some]
        scores = sample(means, noise_of_means(observed, sigma, kappa), prior, steps, rng)
        late = np.arange(steps, 2 * steps) // _EVERY
        parts.append((scores.reshape(-1, count), sigma[late].reshape(-1, count), kappa[late].reshape(-1)))
    return Draws(*(scale * np.concatenate(part) for part in zip(*parts, strict=True)))


def noise_of_means(observed: Observed, sigma: np.ndarray, kappa: np.ndarray) -> Callable[[int], np.ndarray]:
    """The noise's covariance at the n-th draw of sigma and kappa: chains × settings × settings."""
    fixed = observed.covariance / observed.scale**2 + 1e-12 * np.eye(len(observed.by_seed))
    shared, seeds = observed.shared, observed.seeds

    def at(time: int) -> np.ndarray:
        own = np.eye(len(seeds)) * (sigma[time] ** 2 / seeds)[:, None, :]
        return fixed + own + kappa[time][:, None, None] ** 2 * shared

    return at


def sample(
    means: np.ndarray, noise_at: Callable[[int], np.ndarray], prior: Prior, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of the true scores, steps × chains × settings, after as many steps that do not count. `means` has a row for
    each chain: chains of several studies run at once."""
    chains, count = means.shape
    eye = np.eye(count)
    centre = means.mean(axis=1)
    group = rng.choice(len(prior.base), size=means.shape, p=prior.base / prior.base.sum())
    found = np.empty((steps, chains, count))
    for step in range(2 * steps):
        if step % _EVERY == 0:
            noise = noise_at(step // _EVERY)
            root = np.linalg.cholesky(noise)
        variance = prior.width[group] ** 2
        top = centre + _FAR * rng.normal(size=chains)
        scores = top[:, None] - prior.centre[group] + np.sqrt(variance) * rng.normal(size=means.shape)
        seen = scores + np.einsum("ckj,cj->ck", root, rng.normal(size=means.shape))
        total = noise + variance[..., None] * eye + _FAR**2
        pull = np.linalg.solve(total, (means - seen)[..., None])[..., 0]
        together = _FAR**2 * pull.sum(axis=1)
        top = top + together
        scores = scores + variance * pull + together[:, None]
        weights = rng.gamma(prior.base + (group[..., None] == np.arange(len(prior.base))).sum(axis=1))
        weights = np.log(weights / weights.sum(axis=1, keepdims=True) + 1e-300)[:, None, :]
        off = ((scores - top[:, None])[..., None] + prior.centre) / prior.width
        group = categories(weights - np.log(prior.width) - 0.5 * off**2, rng)
        if step >= steps:
            found[step - steps] = scores
    return found
