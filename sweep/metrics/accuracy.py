"""Accuracy: the share of examples whose label is the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class Accuracy(Metric):
    """1 if the predicted label is the reference, else 0."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        return [float(got == wanted) for got, wanted in zip(predictions, references, strict=True)]
