"""Matthews correlation of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs
from sweep.metrics.f1 import in_order


@dataclass(frozen=True, kw_only=True)
class Matthews(CorpusMetric):
    """Correlation of predicted and true labels, from -1 to 1; 0 is chance, also where labels are unbalanced, and where
    one of the two is constant. For any number of labels (Gorodkin 2004, R_K)."""

    worst: ClassVar[float] = -1.0

    @property
    def rule(self) -> str:
        return "matthews"

    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        predictions, references = answers.predictions or [], answers.references
        pairs = list(zip(predictions, references, strict=True))
        columns = {"correct": [float(got == wanted) for got, wanted in pairs]}
        for index, label in enumerate(in_order({*predictions, *references})):
            columns[f"predicted_{index}"] = [float(got == label) for got, _ in pairs]
            columns[f"true_{index}"] = [float(wanted == label) for _, wanted in pairs]
        return columns

    def from_sums(self, sums: Mapping[str, float]) -> float:
        count = (len(sums) - 1) // 2
        predicted = [sums[f"predicted_{index}"] for index in range(count)]
        true = [sums[f"true_{index}"] for index in range(count)]
        total = sum(true)
        covariance = sums["correct"] * total - sum(p * t for p, t in zip(predicted, true, strict=True))
        spread = (total**2 - sum(p * p for p in predicted)) * (total**2 - sum(t * t for t in true))
        return covariance / math.sqrt(spread) if spread > 0 else 0.0
