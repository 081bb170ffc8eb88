"""Matthews correlation of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs, ratio
from sweep.metrics.f1 import in_order

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Matthews(CorpusMetric):
    """Correlation of predicted and true labels, from -1 to 1; 0 is chance, also where labels are unbalanced, and where
    one of the two is constant. For any number of labels (Gorodkin 2004, R_K)."""

    counts_labels: ClassVar[bool] = True

    worst: ClassVar[float] = -1.0

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """Whether the prediction is right; whether each label is the predicted one, and the true one."""
        predictions, references = outputs.predictions or [], outputs.references
        pairs = list(zip(predictions, references, strict=True))
        columns = {"correct": [float(got == wanted) for got, wanted in pairs]}
        for index, label in enumerate(in_order({*predictions, *references})):
            columns[f"predicted_{index}"] = [float(got == label) for got, _ in pairs]
            columns[f"true_{index}"] = [float(wanted == label) for _, wanted in pairs]
        return columns

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        count = (len(sums) - 1) // 2
        predicted = np.stack([sums[f"predicted_{index}"] for index in range(count)])
        true = np.stack([sums[f"true_{index}"] for index in range(count)])
        total = true.sum(0)
        covariance = sums["correct"] * total - (predicted * true).sum(0)
        spread = (total**2 - (predicted**2).sum(0)) * (total**2 - (true**2).sum(0))
        return ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))
