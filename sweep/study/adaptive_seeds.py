"""The settings for which further seeds matter (docs/sweeping.md describes the method).

The seeds' standard deviation is pooled over all settings: few seeds each, many settings, the same data and steps. By
the level of the tests (Bonferroni), the probability that a study drops a setting which is truly in contention is at
most ERROR, if scores are normal with equal variance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from sweep.study.entry import Entry, Seed

FIRST = 2
ERROR = 0.05
Name = TypeVar("Name", bound=Hashable)


def in_contention(
    scores: Mapping[Name, Sequence[float]],
    memory: Mapping[Name, float],
    *,
    threshold: float,
    higher_is_better: bool,
    maximum: int,
) -> set[Name]:
    """The settings for which another seed can still change the answer, of at most `maximum` seeds. A setting with fewer
    than FIRST seeds is in contention. All settings are, while the variance cannot be estimated.

    `scores` are those over seeds, `memory` is the mean peak in bytes, and `threshold` a fraction of the best score.
    """
    from scipy import stats  # the import takes a second, and only adaptive studies need it

    sign = 1.0 if higher_is_better else -1.0
    values = {name: sign * np.asarray(found, dtype=float) for name, found in scores.items() if len(found)}
    squares = sum(float(((v - v.mean()) ** 2).sum()) for v in values.values())
    freedom = sum(len(v) - 1 for v in values.values())
    if freedom < 1:
        return set(scores)
    deviation = math.sqrt(squares / freedom)
    comparisons = max(1, len(values) * (len(values) - 1)) * max(1, maximum - FIRST + 1)
    quantile = float(stats.t.ppf(1 - ERROR / comparisons, freedom))

    def clearly_below(a: np.ndarray, b: np.ndarray, factor: float) -> bool:
        """Whether mean(a) < factor · mean(b), by more than the noise."""
        error = deviation * math.sqrt(1 / len(a) + factor**2 / len(b))
        return float(factor * b.mean() - a.mean()) > quantile * error

    best = max(values, key=lambda name: values[name].mean())
    factor = threshold if higher_is_better else 1 / threshold  # a loss may be as high as best / threshold
    if sign * values[best].mean() <= 0:
        factor = 1.0  # a fraction of a best score of 0 or less has no meaning

    def is_beaten(name: Name) -> bool:
        own = values[name]
        if name != best and clearly_below(own, values[best], factor):
            return True
        smaller = [n for n in values if n != name and memory.get(n, math.inf) <= memory.get(name, -math.inf)]
        return any(clearly_below(own, values[n], 1.0) for n in smaller)

    return {name for name in scores if name not in values or len(values[name]) < FIRST or not is_beaten(name)}


def wanted(
    entries: Mapping[int, Mapping[Seed, Entry]], seeds: Sequence[Seed], *, threshold: float, higher_is_better: bool
) -> dict[int, Sequence[Seed]]:
    """Setting → the seeds that it gets for now: the first ones, and one more if all its seeds have ended and it is in
    contention. The values of the entries are the score and the memory in bytes."""
    scores: dict[int, list[float]] = {}
    memory: dict[int, float] = {}
    for number, found in entries.items():
        ok = [entry.values for entry in found.values() if entry.outcome == "ok" and None not in entry.values]
        scores[number] = [values[0] for values in ok]
        if ok and len(ok[0]) > 1:
            memory[number] = sum(values[1] for values in ok) / len(ok)
    contending = in_contention(
        scores, memory, threshold=threshold, higher_is_better=higher_is_better, maximum=len(seeds)
    )
    first = seeds[:FIRST]
    granted: dict[int, Sequence[Seed]] = {}
    for number, found in entries.items():
        ended = set(found)
        more = set(first) <= ended and number in contending
        granted[number] = seeds[: max(len(first), len(ended) + 1)] if more else first
    return granted
