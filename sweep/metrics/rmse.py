"""Root mean squared error of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rmse(CorpusMetric):
    """The square root of the mean squared difference, in the labels' unit.

    It sees what a correlation does not: answers that are all too low, or on another scale.
    """

    higher_is_better: ClassVar[bool] = False
    worst: ClassVar[float] = math.inf
    needs_numbers: ClassVar[bool] = True

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        pairs = zip(outputs.predictions or [], outputs.references, strict=True)
        errors = [(float(got) - float(wanted)) ** 2 for got, wanted in pairs]
        return {"n": [1.0] * len(errors), "squared_error": errors}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        return np.sqrt(sums["squared_error"] / sums["n"])
