"""What more seeds or more examples would be worth: the expected chance that the likeliest pick is right after them.

The preposterior analysis of Raiffa & Schlaifer (1961, chapter 5): draw a truth from the posterior, and with it the luck
of the seeds and examples that there are; draw the results of the further runs; sample the posterior that these would
give; average over draws. The spreads over seeds are those of the present posterior: what further seeds say of them is
left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from sweep.statistics.chances import Target, right_picks
from sweep.statistics.score_posterior import CEILING, TWO_SIDED, Draws, Observed, sample

OUTCOMES = 48
_CHAINS, _STEPS = 6, 30  # per outcome and prior
_SEED = 1


class Plan(NamedTuple):
    """Further runs: `seeds` more for every setting, the same ones; `factor` times the examples, also for the runs that
    there are."""

    seeds: int = 0
    factor: float = 1.0


def expected_chance(observed: Observed, drawn: Draws, memory: np.ndarray, target: Target, plan: Plan) -> float:
    """The chance, averaged over what the plan may show, that the likeliest pick is then right. Its standard error is
    about 0.05. The same random numbers serve all plans.

    Half of the chains choose the pick and the other half give its chance: the larger of two noisy figures is no
    estimate of either.
    """
    with threadpool_limits(1, "blas"):
        return _expected_chance(observed, drawn, memory, target, plan)


def _expected_chance(observed: Observed, drawn: Draws, memory: np.ndarray, target: Target, plan: Plan) -> float:
    rng = np.random.default_rng(_SEED)
    chosen = rng.choice(len(drawn.scores), OUTCOMES)
    means, noise = _results(observed, drawn, chosen, plan, rng)
    halves: list[list[np.ndarray]] = [[], []]
    for prior in (CEILING, TWO_SIDED):
        repeated = np.repeat(means, _CHAINS, axis=0) / observed.scale
        covariance = np.repeat(noise, _CHAINS, axis=0) / observed.scale**2
        scores = observed.scale * sample(repeated, lambda _, fixed=covariance: fixed, prior, _STEPS, rng)
        scores = scores.reshape(_STEPS, OUTCOMES, _CHAINS, -1)
        for number in (0, 1):
            part = scores[:, :, number::2].swapaxes(0, 1).reshape(OUTCOMES, -1, scores.shape[-1])
            right = [right_picks(one, memory, target).mean(axis=0) for one in part]
            halves[number].append(np.array(right))
    one, two = (np.mean(parts, axis=0) for parts in halves)
    rows = np.arange(OUTCOMES)
    return float((two[rows, one.argmax(axis=1)] + one[rows, two.argmax(axis=1)]).mean() / 2)


def _results(
    observed: Observed, drawn: Draws, chosen: np.ndarray, plan: Plan, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The mean scores that the runs would have (outcomes × settings), and the covariance of their noise (outcomes ×
    settings × settings)."""
    seeds, factor = observed.seeds, plan.factor
    later = seeds + plan.seeds
    scores, sigma, kappa = drawn.scores[chosen], drawn.sigma[chosen], drawn.kappa[chosen]
    size, eye, together = scores.shape, np.eye(len(seeds)), kappa[:, None, None] ** 2
    # The noise of means has three parts: examples, single answers, and seeds.
    of_answers = np.minimum(observed.answers / seeds, 0.9 * np.diag(observed.covariance))
    of_examples = observed.covariance - np.diag(of_answers)
    of_seeds = eye * (sigma**2 / seeds)[:, None, :] + together * observed.shared
    root = _root(of_examples)
    parts = [
        rng.normal(size=size) @ root.T,
        rng.normal(size=size) * np.sqrt(of_answers),
        (_root(of_seeds) @ rng.normal(size=(*size, 1)))[..., 0],
    ]
    # Given the scores seen, the parts sum to what was seen less the truth.
    total = observed.covariance + of_seeds + 1e-12 * observed.scale**2 * eye
    pull = np.linalg.solve(total, (observed.means - scores - sum(parts))[..., None])[..., 0]
    examples = parts[0] + pull @ of_examples
    answers = parts[1] + pull * of_answers
    luck = parts[2] + (of_seeds @ pull[..., None])[..., 0]
    # The same examples are 1/factor of those to come.
    left = np.sqrt((1 - 1 / factor) / factor)
    examples = examples / factor + left * rng.normal(size=size) @ root.T
    answers = answers / factor + left * rng.normal(size=size) * np.sqrt(of_answers)
    share = seeds / later
    if plan.seeds:
        own = sigma * rng.normal(size=size) + kappa[:, None] * rng.normal(size=(size[0], 1))
        own += np.sqrt(of_answers * seeds / factor) * rng.normal(size=size)
        luck = share * luck + (1 - share) * own / np.sqrt(plan.seeds)
        answers = share * answers
    shared = (observed.shared * np.outer(seeds, seeds) + plan.seeds) / np.outer(later, later)
    noise = of_examples / factor + np.diag(of_answers * share / factor) + together * shared
    noise = noise + eye * (sigma**2 / later)[:, None, :] + 1e-12 * observed.scale**2 * eye
    return scores + examples + answers + luck, noise


def _root(covariance: np.ndarray) -> np.ndarray:
    """A square root, also of a matrix that is singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
