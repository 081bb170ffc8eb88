"""The coefficient of determination of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs, ratio
from sweep.metrics.pearson import ROUNDING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class R2(CorpusMetric):
    """1 - squared errors / squared deviations of the references from their mean: 1 is exact, 0 is as good as the mean
    as every answer, and worse answers are negative. 0 where all references are equal."""

    worst: ClassVar[float] = -math.inf
    needs_numbers: ClassVar[bool] = True

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        wanted = [float(text) for text in outputs.references]
        got = [float(text) for text in outputs.predictions or []]
        centre = sum(wanted) / max(len(wanted), 1)  # sums of squares of much larger numbers would lose digits
        y = [number - centre for number in wanted]
        errors = [(a - b) ** 2 for a, b in zip(got, wanted, strict=True)]
        return {"n": [1.0] * len(y), "y": y, "yy": [number * number for number in y], "squared_error": errors}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        spread = sums["yy"] - sums["y"] ** 2 / sums["n"]
        varied = spread > ROUNDING * sums["yy"]
        return np.where(varied, 1 - ratio(sums["squared_error"], np.where(varied, spread, 1.0)), 0.0)
