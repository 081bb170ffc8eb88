"""What would give an `inconclusive` setting a verdict: how many seeds or examples, if the true difference is the
observed one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from analysis.decision.noninferiority import INCONCLUSIVE, Verdicts
from analysis.decision.score_noise import ScoreNoise

CHANCE = 0.8  # of a verdict, with what is asked for
MOST_SEEDS = 30
MOST_EXAMPLES = 1_000_000
FIRST_SEEDS = 3


class SampleSize(NamedTuple):
    """`seeds` per setting in all, and `examples` in all, that would give a verdict; None where they need not change.

    `hopeless` where no number within reason would: the setting is too close to the threshold. `first_look` where there
    is one seed, and so nothing to compute from."""

    rival: str
    seeds: int | None = None
    examples: int | None = None
    hopeless: bool = False
    first_look: bool = False


def required_sample_size(noise: ScoreNoise, found: Verdicts) -> list[SampleSize | None]:
    """One per setting, None where there is a verdict.

    From the present estimate of the difference to the threshold and of its noise: the least number for which the test
    would reach its level with a chance of CHANCE. Seeds shrink the noise between seeds, examples that of the examples;
    if neither is enough alone, both."""
    return [
        _sample_size(noise, found, k) if verdict == INCONCLUSIVE else None for k, verdict in enumerate(found.verdict)
    ]


def _sample_size(noise: ScoreNoise, found: Verdicts, k: int) -> SampleSize:
    column = int(found.rival[k])
    j = int(noise.rivals[column])
    rival = noise.settings[j]
    if not (noise.seeds > 1).any():
        return SampleSize(rival, seeds=FIRST_SEEDS, first_look=True)
    made = found.contrasts
    difference = abs(float(made.value[k, column]))
    level = found.level_meets if made.value[k, column] > 0 else found.level_fails
    now = int(min(noise.seeds[k], noise.seeds[j]))
    seed_part, example_part = float(made.seed_variance[k, column]) * now, float(made.example_variance[k, column])
    per_seed_freedom = made.seed_df / max(1, (noise.seeds - 1).sum()) * len(noise.seeds)

    def room(seeds: int) -> float:
        """How large the variance may be with so many seeds."""
        freedom = max(1.0, per_seed_freedom * (seeds - 1)) if math.isfinite(per_seed_freedom) else math.inf
        critical = stdtrit(freedom, 1 - level) if math.isfinite(freedom) else ndtri(1 - level)  # stats.t.ppf, but quick
        return (difference / (critical + ndtri(CHANCE))) ** 2

    for seeds in range(now + 1, MOST_SEEDS + 1):
        if seed_part / seeds + example_part <= room(seeds):
            return SampleSize(rival, seeds=seeds)
    n = noise.n_examples
    if n is not None and difference > 0:
        for seeds in (now, *(s for s in (FIRST_SEEDS, 5, 10, MOST_SEEDS) if s > now)):
            left = room(seeds) - seed_part / seeds
            if left > 0:
                examples = _round_up(n * example_part / left)
                if examples <= MOST_EXAMPLES:
                    return SampleSize(rival, seeds=seeds if seeds > now else None, examples=max(examples, n + 1))
    return SampleSize(rival, hopeless=True)


def _round_up(count: float) -> int:
    """To two digits: more would be false precision."""
    digits = max(0, math.floor(math.log10(max(count, 1))) - 1)
    return int(np.ceil(count / 10**digits) * 10**digits)
