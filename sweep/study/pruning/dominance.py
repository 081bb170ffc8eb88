"""Dominance pruning (docs/sweeping.md): a run stops when another one that needs no more memory is clearly better.

Clearly better is one standard error of the difference, PATIENCE times in a row (Breiman et al. 1984, ch. 3), or two
once. The standard error is that of one evaluation, although the window has several: they use the same examples and are
far from independent. It is also that of two independent samples, although both runs use the same examples. Both choices
make the margin wider than necessary, which compensates for many comparisons with many runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW = 5  # evaluations
PATIENCE = 2
WARM_UP = 2  # evaluations, before which nothing is stopped
MANY_ERRORS = 2.0


class Point(NamedTuple):
    """One evaluation while training: the optimizer step, the score, and the standard error of its mean."""

    step: int
    score: float
    error: float


@dataclass(frozen=True)
class Run:
    """What the pruner knows of a run: its name, its evaluations in order, and its peak memory so far in bytes."""

    name: str
    points: Sequence[Point]
    memory_bytes: float


def dominated(run: Run, others: Iterable[Run], *, higher_is_better: bool = True) -> str | None:
    """The reason why `run` should stop now, or None. `others` are runs of other settings, ended or not. Runs that need
    more memory, and runs that were not evaluated at the same steps, are ignored."""
    if len(run.points) < WARM_UP:
        return None
    sign = 1.0 if higher_is_better else -1.0
    for other in others:
        if other.memory_bytes > run.memory_bytes:
            continue
        leads = _leads(run.points, other.points, sign)
        if len(leads) < WARM_UP:
            continue
        if leads[-1] > MANY_ERRORS or (len(leads) >= PATIENCE and min(leads[-PATIENCE:]) > 1.0):
            step, score, _ = run.points[-1]
            there = next(point.score for point in other.points if point.step == step)
            return (
                f"{other.name} needs no more memory and is clearly better: {there:.4g}, not {score:.4g}, at step {step}"
            )
    return None


def _leads(own: Sequence[Point], other: Sequence[Point], sign: float) -> list[float]:
    """By how many standard errors the other run is ahead, on means over the window, at each evaluation of this run.
    Empty if the other run was not evaluated at this run's last step."""
    theirs = {point.step: point for point in other}
    pairs = [(point, theirs[point.step]) for point in own if point.step in theirs]
    if not pairs or pairs[-1][0].step != own[-1].step:
        return []
    leads = []
    for end in range(1, len(pairs) + 1):
        window = pairs[max(0, end - WINDOW) : end]
        difference = sum(sign * (b.score - a.score) for a, b in window) / len(window)
        error = math.sqrt(sum(a.error**2 + b.error**2 for a, b in window) / len(window))
        leads.append(difference / error if error else math.copysign(math.inf, difference) if difference else 0.0)
    return leads
