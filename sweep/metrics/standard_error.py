"""The standard error of a score that is a mean over examples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of per-example values; infinite for fewer than two.

    Where all values lie between 0 and 1, it is at least the weight of one example: a score of 0 from 50 examples also
    has an error.
    """
    count = len(values)
    if count < 2:
        return math.inf
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return max(spread, 1 / count) if all(0 <= value <= 1 for value in values) else spread
