"""The standard error of a score that is a mean over examples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of per-example values. Where all lie between 0 and 1, one example's weight at least: a score of 0 of
    50 is not known without error."""
    count = len(values)
    if count < 2:
        return math.inf
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return max(spread, 1 / count) if all(0 <= value <= 1 for value in values) else spread
