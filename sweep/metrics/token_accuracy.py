"""Token accuracy: the part of a sequence that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class TokenAccuracy(Metric):
    """The share of positions with the same word, among the positions of the longer text.

    Missing and surplus words count as wrong. The text is generated, without teacher forcing. Two empty texts have 1.
    """

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        values = []
        for prediction, reference in zip(predictions, references, strict=True):
            got, wanted = prediction.split(), reference.split()
            same = sum(a == b for a, b in zip(got, wanted, strict=False))
            values.append(same / max(len(got), len(wanted), 1))
        return values
