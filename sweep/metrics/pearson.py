"""Pearson's correlation of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs, ratio

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-12  # a spread below this share of the squares is 0 but for rounding


@dataclass(frozen=True, kw_only=True)
class Pearson(CorpusMetric):
    """Linear correlation of predicted and true numbers, from -1 to 1; 0 where one of the two is constant."""

    worst: ClassVar[float] = -1.0
    needs_numbers: ClassVar[bool] = True

    def values(self, texts: Sequence[str]) -> list[float]:
        """The numbers to correlate, centred at 0: sums of squares of much larger numbers would lose digits."""
        numbers = [float(text) for text in texts]
        centre = sum(numbers) / max(len(numbers), 1)
        return [number - centre for number in numbers]

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        x, y = self.values(outputs.predictions or []), self.values(outputs.references)
        return {
            "n": [1.0] * len(y),
            "x": x,
            "y": y,
            "xx": [a * a for a in x],
            "yy": [b * b for b in y],
            "xy": [a * b for a, b in zip(x, y, strict=True)],
        }

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        n, x, y = sums["n"], sums["x"], sums["y"]
        spread_x, spread_y = n * sums["xx"] - x * x, n * sums["yy"] - y * y
        varied = (spread_x > ROUNDING * n * sums["xx"]) & (spread_y > ROUNDING * n * sums["yy"])
        return ratio(n * sums["xy"] - x * y, np.where(varied, np.sqrt(np.abs(spread_x * spread_y)), 0.0))
