"""The posterior of how much scores vary over seeds: each setting's own part, and the part that settings share.

The score of a run, divided by the best score, is y_ks = m_k + c_s + u_ks with u_ks ~ N(0, sigma_k² + answers_k), c_s ~
N(0, kappa²) and m_k flat. Two or three seeds say little of one setting, so settings inform each other (Gelman 2006,
Bayesian Analysis 1:515): log sigma_k ~ N(log s, w²), log s ~ N(log 0.006, 1), w on a grid. kappa is on a grid, whose
smallest value stands for "nothing is shared". 0.006 is the median of published fine-tunings; the prior's 95% reach from
0.1% to 4% of the score.

Gibbs sampling with m integrated out: c | sigma, kappa is normal; sigma, (s, w) and kappa are drawn on their grids. The
products are sums by einsum: a threaded BLAS is several times slower on such small matrices where cores are busy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sweep.statistics.draws import categories

SIGMA = np.geomspace(2e-4, 0.3, 36)  # of the best score
MEDIAN = 0.006
_WIDTHS, _WIDTH_PRIOR = np.array([0.1, 0.4, 0.8, 1.3]), np.array([0.3, 0.3, 0.25, 0.15])
KAPPA = np.geomspace(2e-4, 0.2, 28)  # of the best score
_KAPPA_PRIOR = np.where(np.arange(28) == 0, 1.0, np.exp(-0.5 * (np.log(KAPPA / 0.005) / 1.2) ** 2) / 8)
_BURN, _THIN = 20, 3

_LOG = np.log(SIGMA)
# log p(sigma | s, w) for each pair (s, w), and log p(s, w).
_GIVEN = -0.5 * ((_LOG[None, None, :] - _LOG[:, None, None]) / _WIDTHS[None, :, None]) ** 2
_GIVEN = (_GIVEN - np.log(np.exp(_GIVEN).sum(axis=-1, keepdims=True))).reshape(-1, len(SIGMA))
_PAIR = (-0.5 * np.log(SIGMA / MEDIAN)[:, None] ** 2 + np.log(_WIDTH_PRIOR)[None, :]).reshape(-1)


class SeedLuck(NamedTuple):
    """Draws of `sigma` (times × chains × settings) and `kappa` (times × chains), as shares of the best score."""

    sigma: np.ndarray
    kappa: np.ndarray


def draw(by_seed: np.ndarray, answers: np.ndarray, chains: int, times: int, rng: np.random.Generator) -> SeedLuck:
    """Args:
    by_seed: Scores of runs, settings × seeds, NaN where there is no run, divided by the best score.
    answers: The variance of a run's score by single answers, per setting, on the same scale.
    chains: Independent chains.
    times: Draws per chain.
    """
    ran = np.isfinite(by_seed)
    count = ran.sum(axis=1)
    observed = ran & (count > 1)[:, None]  # a single run fits its mean
    shares = bool((observed.sum(axis=0) > 1).any())
    y = np.where(ran, by_seed, 0.0)
    y = np.where(ran, y - (y.sum(axis=1) / np.maximum(count, 1))[:, None], 0.0)
    # With m integrated out, the precision of c is sum_k B_k / v_k + 1 / kappa².
    centring = np.eye(ran.shape[1])[None] * observed[:, :, None] - (
        observed[:, :, None] * observed[:, None, :] / np.maximum(count, 1)[:, None, None]
    )
    variance = SIGMA**2 + answers[:, None] + 1e-12  # settings × grid
    freedom = np.maximum(count - 1, 0)
    size, seeds = len(by_seed), ran.shape[1]
    which = rng.integers(8, 24, (chains, size))
    at = rng.integers(0, len(KAPPA), chains)
    luck = np.zeros((chains, seeds))
    made = SeedLuck(np.empty((times, chains, size)), np.zeros((times, chains)))
    for step in range(_BURN + times * _THIN):
        if shares:
            precision = 1 / variance[np.arange(size), which]
            matrix = np.einsum("ck,kst->cst", precision, centring)
            matrix += np.eye(seeds) / KAPPA[at][:, None, None] ** 2
            noise = np.einsum("cst,ct->cs", np.linalg.cholesky(matrix), rng.normal(size=(chains, seeds)))
            pull = np.einsum("ck,ks->cs", precision, y * observed) + noise
            luck = np.linalg.solve(matrix, pull[..., None])[..., 0]
            squares = (luck**2).sum(axis=1)[:, None]
            at = categories(np.log(_KAPPA_PRIOR) - seeds * np.log(KAPPA) - 0.5 * squares / KAPPA**2, rng)
        rest = np.where(observed, y - luck[:, None, :], 0.0)
        rest -= np.where(observed, rest.sum(axis=-1, keepdims=True) / np.maximum(count, 1)[:, None], 0.0)
        tally = (which[..., None] == np.arange(len(SIGMA))).sum(axis=1)
        prior = _GIVEN[categories(_PAIR + np.einsum("cg,hg->ch", tally, _GIVEN), rng)][:, None, :]
        fit = -0.5 * freedom[:, None] * np.log(variance) - 0.5 * (rest**2).sum(axis=-1)[..., None] / variance
        which = categories(prior + fit, rng)
        if step >= _BURN and (step - _BURN) % _THIN == _THIN - 1:
            made.sigma[(step - _BURN) // _THIN] = SIGMA[which]
            made.kappa[(step - _BURN) // _THIN] = KAPPA[at] if shares else 0.0
    return made
