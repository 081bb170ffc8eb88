"""Token F1, as SQuAD's evaluation script computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics import Metric
from sweep.metrics.exact_match import squad_words


@dataclass(frozen=True, kw_only=True)
class TokenF1(Metric):
    """2·common / (predicted + reference words) after SQuAD's normalisation; the order of the words does not count.

    Where one text has no word after normalisation, the value is 1 if the other has none either, else 0.
    """

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        values = []
        for prediction, reference in zip(predictions, references, strict=True):
            got, wanted = squad_words(prediction), squad_words(reference)
            common = sum((Counter(got) & Counter(wanted)).values())
            values.append(2 * common / (len(got) + len(wanted)) if got and wanted else float(got == wanted))
        return values
