"""Corpus BLEU, counted by sacrebleu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sweep.metrics import CorpusMetric, ModelOutputs

if TYPE_CHECKING:
    import numpy as np

_ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Bleu(CorpusMetric):
    """BLEU of the whole set, 0 to 100, with one reference for each example. The fact `signature.<metric>` is
    sacrebleu's signature, without which BLEU scores cannot be compared."""

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """Tokenizer of sacrebleu: 13a for European languages, zh for Chinese, char for other scripts."""
    lowercase: bool = False
    """Whether case is ignored."""

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """Lengths in tokens; matching n-grams and all n-grams of the prediction, by order."""
        scorer = self._sacrebleu(effective_order=True)  # changes no count; without it, single sentences give a warning
        pairs = zip(outputs.predictions or [], outputs.references, strict=True)
        rows = [scorer.sentence_score(prediction, [reference]) for prediction, reference in pairs]
        columns = {"hyp_len": [float(row.sys_len) for row in rows], "ref_len": [float(row.ref_len) for row in rows]}
        columns |= {f"correct_{n}": [float(row.counts[n - 1]) for row in rows] for n in _ORDERS}
        return columns | {f"total_{n}": [float(row.totals[n - 1]) for row in rows] for n in _ORDERS}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """As sacrebleu: n-grams of 1 to 4, brevity penalty, "exp" smoothing of orders without a match."""
        import numpy as np

        smooth, logs = 1.0, 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            for n in _ORDERS:
                correct, total = sums[f"correct_{n}"], sums[f"total_{n}"]
                smooth = np.where((total > 0) & (correct == 0), smooth * 2, smooth)
                logs = logs + np.log(np.where(correct > 0, correct, 1 / smooth) / total)
            penalty = np.exp(np.minimum(0.0, 1 - sums["ref_len"] / sums["hyp_len"]))
            known = (sums["correct_1"] > 0) & (sums[f"total_{_ORDERS[-1]}"] > 0)
            return np.where(known, 100 * penalty * np.exp(logs / len(_ORDERS)), 0.0)

    def facts(self) -> dict[str, str]:
        scorer = self._sacrebleu()
        scorer.corpus_score(["a"], [["a"]])  # the number of references is part of the signature
        return {**super().facts(), "signature": str(scorer.get_signature())}

    def _sacrebleu(self, effective_order: bool = False) -> Any:
        from sacrebleu.metrics import BLEU

        return BLEU(tokenize=self.tokenize, lowercase=self.lowercase, force=True, effective_order=effective_order)
