"""Whether an exported model does what the run's model did, on the same validation examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOISE_ERRORS = 2.0  # standard errors: by chance alone, a drop exceeds it once in 44 times
WITHOUT_EXAMPLES = 0.01  # of the score, where a metric has no values by example


class Difference(NamedTuple):
    """`drop` is how much worse the exported model scores, in the metric's unit (negative: better). `noise` is what a
    drop may be by chance; `changed` counts the examples whose value differs, None where the metric has none."""

    before: float
    after: float
    drop: float
    noise: float
    examples: int
    changed: int | None

    @property
    def beyond_noise(self) -> bool:
        return self.drop > self.noise

    def __str__(self) -> str:
        scores = f"{self.before:.4f} in its run, {self.after:.4f} exported"
        if self.changed == 0:
            return f"{scores}: the same on each of {self.examples} examples"
        on = f"{self.changed} of {self.examples} examples differ, " if self.changed is not None else ""
        way = "worse" if self.drop > 0 else "better"
        side = "beyond" if self.beyond_noise else "within"
        return f"{scores}: {on}{abs(self.drop):.4f} {way}, {side} the noise of {self.noise:.4f}"


def difference(
    metric: str,
    higher_is_better: bool,
    before: tuple[float, Sequence[Mapping[str, Any]]],
    after: tuple[float, Sequence[Mapping[str, Any]]],
) -> Difference:
    """Compare two evaluations, each (score, rows), on the same examples.

    The examples pair up, and most do not change at all; so the noise is that of the mean of their differences, two
    standard errors of it, and not that of two independent scores, which would let a real loss pass. A metric over the
    whole set (BLEU) has no values by example: 1% of its score is allowed then.
    """
    sign = 1.0 if higher_is_better else -1.0
    drop = sign * (before[0] - after[0])
    rows = [{row["index"]: row for row in side[1]} for side in (before, after)]
    shared = sorted(rows[0].keys() & rows[1].keys())
    if not shared or any(metric not in row or row[metric] is None for side in rows for row in side.values()):
        return Difference(*(before[0], after[0], drop), WITHOUT_EXAMPLES * abs(before[0]), len(shared), None)
    losses = [sign * (rows[0][index][metric] - rows[1][index][metric]) for index in shared]
    count = len(losses)
    mean = sum(losses) / count
    variance = sum((loss - mean) ** 2 for loss in losses) / max(count - 1, 1)
    changed = sum(loss != 0 for loss in losses)
    return Difference(before[0], after[0], drop, NOISE_ERRORS * math.sqrt(variance / count), count, changed)
