"""Exact match: the share of predictions that equal their reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Metric):
    """1 where prediction and reference have the same words in the same order, else 0. White space does not count."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        pairs = zip(predictions, references, strict=True)
        return [float(prediction.split() == reference.split()) for prediction, reference in pairs]
