"""Corpus chrF, counted by sacrebleu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from sweep.metrics import CorpusMetric, ModelOutputs, ratio

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ChrF(CorpusMetric):
    """F-score of character n-grams over the whole set, 0 to 100 (Popović 2015). The fact `signature.<metric>` is
    sacrebleu's signature."""

    char_order: Annotated[int, Ge(1)] = 6
    """Longest character n-gram."""
    word_order: Annotated[int, Ge(0)] = 0
    """Longest word n-gram; 2 is chrF++."""
    beta: Annotated[int, Ge(1)] = 2
    """Weight of recall against precision."""

    def _orders(self) -> range:
        return range(1, self.char_order + self.word_order + 1)

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """n-grams of prediction and reference, and matching ones: of characters by order, then of words by order.

        sacrebleu has no public function that gives the counts.
        """
        rows = self._sacrebleu()._extract_corpus_statistics(outputs.predictions, [outputs.references])
        names = [f"{what}_{order}" for order in self._orders() for what in ("hyp", "ref", "match")]
        return {name: [float(row[i]) for row in rows] for i, name in enumerate(names)}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """As sacrebleu: precision and recall are means over the orders that occur on both sides."""
        precision = recall = count = 0.0
        for n in self._orders():
            predicted, wanted, match = (sums[f"{what}_{n}"] for what in ("hyp", "ref", "match"))
            occurs = (predicted > 0) & (wanted > 0)
            precision = precision + occurs * ratio(match, predicted)
            recall = recall + occurs * ratio(match, wanted)
            count = count + occurs
        precision, recall = ratio(precision, count), ratio(recall, count)
        factor = self.beta**2
        return 100 * ratio((1 + factor) * precision * recall, factor * precision + recall)

    def facts(self) -> dict[str, str]:
        scorer = self._sacrebleu()
        scorer.corpus_score(["a"], [["a"]])  # the number of references is part of the signature
        return {**super().facts(), "signature": str(scorer.get_signature())}

    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics import CHRF

        return CHRF(char_order=self.char_order, word_order=self.word_order, beta=self.beta)
