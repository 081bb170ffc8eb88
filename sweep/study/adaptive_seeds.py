"""The settings for which further seeds matter (docs/sweeping.md describes the method).

A setting is in contention while its chance to be the right pick, the smallest that reaches the score threshold, is at
least LEAST. The chances are those of a report (`sweep.statistics`), without the results of single examples: the noise
of the examples is that of a share of right answers, where the number of examples is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from sweep.statistics import score_posterior
from sweep.statistics.chances import Target, chances
from sweep.statistics.score_posterior import Observed
from sweep.study.entry import Entry, Seed

FIRST = 2
LEAST = 0.01
_CHAINS, _STEPS = 64, 50
Name = TypeVar("Name", bound=Hashable)
Rows = tuple[tuple[float | None, ...], ...]


def in_contention(
    scores: Mapping[Name, Mapping[Seed, float]],
    memory: Mapping[Name, float],
    *,
    threshold: float,
    higher_is_better: bool,
    n_examples: int | None = None,
) -> set[Name]:
    """The settings for which another seed can still change the answer: those with a chance of at least LEAST to be the
    right pick; while these are several, also the likeliest best, whose score the threshold rests on; and those with
    fewer than FIRST seeds.

    `scores` are by seed, `memory` is the mean peak in bytes, and `threshold` a fraction of the best score.
    """
    names = [name for name, found in scores.items() if found]
    waiting = {name for name in scores if len(scores[name]) < FIRST}
    if not names:
        return waiting
    seeds = sorted({seed for found in scores.values() for seed in found}, key=str)
    sign = 1.0 if higher_is_better else -1.0
    gains = tuple(tuple(sign * found[seed] if seed in found else None for seed in seeds)
                  for found in map(scores.__getitem__, names))  # fmt: skip
    sizes = [memory.get(name, np.inf) for name in names]
    largest = max([size for size in sizes if np.isfinite(size)], default=1.0)
    known = tuple(size if np.isfinite(size) else 2 * largest for size in sizes)
    right, best = _chances(gains, known, threshold, higher_is_better, n_examples)
    able = {name for name, chance in zip(names, right, strict=True) if chance >= LEAST}
    if len(able) > 1:
        able.add(names[int(np.argmax(best))])
    return able | waiting


@lru_cache(maxsize=4)  # a scheduler asks again after each run that started
def _chances(
    gains: Rows, memory: tuple[float, ...], threshold: float, higher_is_better: bool, n_examples: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The chances of being the right pick, and of being the best."""
    by_seed = np.array(gains, dtype=float)  # None becomes NaN
    means = np.nanmean(by_seed, axis=1)
    best = float(means.max())
    weight = threshold if higher_is_better else 1 / threshold  # a loss may be as high as best / threshold
    if best * (1 if higher_is_better else -1) <= 0:
        weight = 1.0  # a fraction of a best score of 0 or less has no meaning
    variance = np.zeros(len(means))
    scores = np.abs(means)
    if n_examples and scores.max() <= 1:
        variance = score_posterior.NOT_SHARED * scores * (1 - scores) / n_examples
    scale = abs(best) or float(scores.max()) or 1.0
    observed = Observed(by_seed, np.diag(variance), np.zeros(len(means)), scale)
    drawn = score_posterior.draw(observed, chains=_CHAINS, steps=_STEPS)
    found = chances(drawn.scores, np.array(memory), Target(weight), scale)
    return found.p_right_pick, found.p_best


def wanted(
    entries: Mapping[int, Mapping[Seed, Entry]],
    seeds: Sequence[Seed],
    *,
    threshold: float,
    higher_is_better: bool,
    n_examples: int | None = None,
) -> dict[int, Sequence[Seed]]:
    """Setting → the seeds that it gets for now: the first ones, and one more if all its seeds have ended and it is in
    contention. The values of the entries are the score and the memory in bytes."""
    scores: dict[int, dict[Seed, float]] = {}
    memory: dict[int, float] = {}
    for number, found in entries.items():
        ok = {s: entry.values for s, entry in found.items() if entry.outcome == "ok" and None not in entry.values}
        scores[number] = {seed: float(values[0] or 0.0) for seed, values in ok.items()}
        sizes = [float(values[1] or 0.0) for values in ok.values() if len(values) > 1]
        if sizes:
            memory[number] = sum(sizes) / len(sizes)
    contending = in_contention(
        scores, memory, threshold=threshold, higher_is_better=higher_is_better, n_examples=n_examples
    )
    first = seeds[:FIRST]
    granted: dict[int, Sequence[Seed]] = {}
    for number, found in entries.items():
        ended = set(found)
        more = set(first) <= ended and number in contending
        granted[number] = seeds[: max(len(first), len(ended) + 1)] if more else first
    return granted
