"""Whether an exported model scores like the run's model, on the same validation examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweep.metrics import Metric

GROUPS = 20
NOISE_ERRORS = 2.0  # standard errors: by chance, a drop exceeds it once in 44 times
WITHOUT_EXAMPLES = 0.01  # of the score, for a metric with neither values by example nor predictions


class Difference(NamedTuple):
    """`drop` is how much worse the exported model scores, in the metric's unit; negative if it is better. `noise` is
    the largest drop by chance. `changed` counts the examples whose value or prediction differs, None if there are
    neither."""

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
    name: str,
    metric: Metric,
    before: tuple[float, Sequence[Mapping[str, Any]]],
    after: tuple[float, Sequence[Mapping[str, Any]]],
) -> Difference:
    """Compare the score and rows of the run with those of the exported model. `name` is the metric's column.

    The examples form pairs, and most pairs do not change. So the noise is two standard errors of the mean of their
    differences. The noise of two independent scores would be larger, and a real loss would pass. A metric over the
    whole set (BLEU, F1) has no mean over examples: its standard error is the delete-a-group jackknife's (Kott 2001). If
    there are no predictions to score again (perplexity), 1% of the score is allowed.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    drop = sign * (before[0] - after[0])
    rows = list(zip(before[1], after[1], strict=True))
    if rows and all(_has(pair, name) for pair in rows):
        losses = [sign * (old[name] - new[name]) for old, new in rows]
        error = _error_of_mean(losses)
        changed = sum(loss != 0 or _answers_differ(pair) for loss, pair in zip(losses, rows, strict=True))
    elif rows and metric.needs_predictions and all(_has(pair, "prediction") for pair in rows):
        error = _jackknife(metric, rows)
        changed = sum(map(_answers_differ, rows))
    else:
        return Difference(before[0], after[0], drop, WITHOUT_EXAMPLES * abs(before[0]), len(rows), None)
    return Difference(before[0], after[0], drop, NOISE_ERRORS * error, len(rows), changed)


_Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def _has(pair: _Pair, column: str) -> bool:
    return all(row.get(column) is not None for row in pair)


def _answers_differ(pair: _Pair) -> bool:
    """Numbers differ from a thousandth on: rounding changes the last digits of all."""
    old, new = (row.get("prediction") for row in pair)
    try:
        return old != new and not math.isclose(float(old), float(new), rel_tol=1e-3)
    except (TypeError, ValueError):
        return True


def _error_of_mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1) / len(values))


def _jackknife(metric: Metric, rows: Sequence[_Pair]) -> float:
    """The standard error of the difference of two scores: the scores are computed again without each group."""
    groups = min(GROUPS, len(rows))
    differences = []
    for group in range(groups):
        rest = [pair for index, pair in enumerate(rows) if index % groups != group]
        if rest:
            references = [str(old["reference"]) for old, _ in rest]
            old, new = (metric.score([str(pair[side]["prediction"]) for pair in rest], references) for side in (0, 1))
            differences.append(old - new)
    mean = sum(differences) / max(len(differences), 1)
    return math.sqrt((groups - 1) / groups * sum((value - mean) ** 2 for value in differences))
