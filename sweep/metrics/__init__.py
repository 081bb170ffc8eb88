"""Validation metrics: one file per metric, one YAML per metric in `conf/metric/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """One number from predictions and references, both as text; per-example values where the metric has them."""

    higher_is_better: ClassVar[bool] = True
    worst: ClassVar[float] = 0.0

    @abstractmethod
    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """One value per pair, in order. Paired tests need them."""

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """The value for the whole set: the mean of the examples unless the metric says otherwise."""
        values = self.per_example(predictions, references)
        return sum(values) / len(values)
