"""Corpus BLEU by sacrebleu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sweep.metrics import CorpusMetric, ModelOutputs

_ORDERS = (1, 2, 3, 4)
NAMES = ("hyp_len", "ref_len", *(f"correct_{n}" for n in _ORDERS), *(f"total_{n}" for n in _ORDERS))


@dataclass(frozen=True, kw_only=True)
class Bleu(CorpusMetric):
    """BLEU of the whole set, 0 to 100, with one reference for each example. The fact `signature.<metric>` is
    sacrebleu's signature, without which BLEU scores cannot be compared."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """Tokenizer of sacrebleu: 13a for European languages, zh for Chinese, char for other scripts."""
    lowercase: bool = False
    """Whether case is ignored."""

    @property
    def rule(self) -> str:
        return "sacrebleu.bleu"

    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        rows = self._sacrebleu()._extract_corpus_statistics(answers.predictions, [answers.references])
        return {name: [float(row[i]) for row in rows] for i, name in enumerate(NAMES)}

    def from_sums(self, sums: Mapping[str, float]) -> float:
        return self._sacrebleu()._compute_score_from_stats([round(sums[name]) for name in NAMES]).score

    def facts(self) -> dict[str, str]:
        scorer = self._sacrebleu()
        scorer.corpus_score(["a"], [["a"]])  # the number of references is part of the signature
        return {**super().facts(), "signature": str(scorer.get_signature())}

    def _sacrebleu(self) -> Any:
        from sacrebleu.metrics import BLEU

        return BLEU(tokenize=self.tokenize, lowercase=self.lowercase, force=True)
