"""ROUGE by Google's rouge-score, with a tokenizer for all scripts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sweep.metrics import Metric

# Scripts without spaces between words: each character is a token. (A Thai phrase is one token.)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
_TOKEN = rf"[{_UNSPACED}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"


class UnicodeTokenizer:
    """Tokens are sequences of letters, marks and digits, in lower case.

    On English text these are the tokens of rouge-score's tokenizer. That one drops all letters but a to z: two equal
    Korean texts score 0 with it.
    """

    def __init__(self) -> None:
        import regex

        self._token = regex.compile(_TOKEN, regex.VERSION1)

    def tokenize(self, text: str) -> list[str]:
        return self._token.findall(unicodedata.normalize("NFC", text).lower())


@dataclass(frozen=True, kw_only=True)
class Rouge(Metric):
    """F-measure of ROUGE, without stemming."""

    kind: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Common words (rouge1), common pairs of words (rouge2), or the longest common subsequence (rougeL)."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([self.kind], tokenizer=UnicodeTokenizer())
        pairs = zip(predictions, references, strict=True)
        return [float(scorer.score(reference, prediction)[self.kind].fmeasure) for prediction, reference in pairs]
