"""Corpus chrF by sacrebleu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from sweep.metrics import CorpusMetric, ModelOutputs


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

    @property
    def rule(self) -> str:
        return "sacrebleu.chrf" if self.beta == 2 else f"sacrebleu.chrf_beta{self.beta}"

    def _names(self) -> list[str]:
        orders = range(1, self.char_order + self.word_order + 1)
        return [f"{what}_{order}" for order in orders for what in ("hyp", "ref", "match")]

    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        rows = self._sacrebleu()._extract_corpus_statistics(answers.predictions, [answers.references])
        return {name: [float(row[i]) for row in rows] for i, name in enumerate(self._names())}

    def from_sums(self, sums: Mapping[str, float]) -> float:
        return self._sacrebleu()._compute_score_from_stats([round(sums[name]) for name in self._names()]).score

    def facts(self) -> dict[str, str]:
        scorer = self._sacrebleu()
        scorer.corpus_score(["a"], [["a"]])
        return {**super().facts(), "signature": str(scorer.get_signature())}

    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics import CHRF

        return CHRF(char_order=self.char_order, word_order=self.word_order, beta=self.beta)
