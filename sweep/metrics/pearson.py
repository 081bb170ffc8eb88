"""Pearson's correlation of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs

ROUNDING = 1e-12  # what a spread of 0 may come out as, beside the squares that it is a difference of


@dataclass(frozen=True, kw_only=True)
class Pearson(CorpusMetric):
    """Linear correlation of predicted and true numbers, from -1 to 1; 0 where one of the two is constant."""

    worst: ClassVar[float] = -1.0
    needs_numbers: ClassVar[bool] = True

    @property
    def rule(self) -> str:
        return "pearson"

    def values(self, texts: Sequence[str]) -> list[float]:
        """What is correlated, about 0: sums of squares of far larger numbers would lose the digits that matter."""
        numbers = [float(text) for text in texts]
        centre = sum(numbers) / max(len(numbers), 1)
        return [number - centre for number in numbers]

    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        x, y = self.values(answers.predictions or []), self.values(answers.references)
        return {
            "n": [1.0] * len(y),
            "x": x,
            "y": y,
            "xx": [a * a for a in x],
            "yy": [b * b for b in y],
            "xy": [a * b for a, b in zip(x, y, strict=True)],
        }

    def from_sums(self, sums: Mapping[str, float]) -> float:
        n = sums["n"]
        covariance = n * sums["xy"] - sums["x"] * sums["y"]
        spreads = [n * sums[both] - sums[one] ** 2 for one, both in (("x", "xx"), ("y", "yy"))]
        constant = any(spread <= ROUNDING * n * sums[both] for spread, both in zip(spreads, ("xx", "yy"), strict=True))
        return 0.0 if constant else covariance / math.sqrt(spreads[0] * spreads[1])
