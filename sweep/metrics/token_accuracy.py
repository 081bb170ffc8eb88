"""Token accuracy: how much of a sequence is right where exact match only says that not all of it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class TokenAccuracy(Metric):
    """The share of positions at which the words agree, over the longer of the two: missing and surplus words count as
    wrong. On generated text, not under teacher forcing. Two empty texts agree fully."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        values = []
        for prediction, reference in zip(predictions, references, strict=True):
            got, wanted = prediction.split(), reference.split()
            same = sum(a == b for a, b in zip(got, wanted, strict=False))
            values.append(same / max(len(got), len(wanted), 1))
        return values
