"""Exact match: the share of predictions that equal their reference."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from sweep.core.errors import UserError
from sweep.metrics import Metric

_NUMBER = re.compile(r"(?:(?<![\d.,])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_MARK = "####"  # before the answer in GSM8K
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Metric):
    """1 if prediction and reference are equal by `rule`, else 0.

    - words: the same words in the same order; white space does not count.
    - squad: after SQuAD's normalisation: lower case, without punctuation and the articles a, an, the.
    - number: the same final number: the one after "####" (GSM8K) if the text has this mark, else the last of the text.
      "1,234.0", "$1234" and "1234." are equal.
    """

    rule: Literal["words", "squad", "number"] = "words"
    """What is compared: words, words after SQuAD's normalisation, or the final number."""

    def reference_faults(self, references: Sequence[str]) -> Iterator[tuple[int, str]]:
        if self.rule == "number":
            for index, reference in enumerate(references):
                if final_number(reference) is None:
                    said = f"its reference has no number, for exact match by final number: {reference[:80]!r}"
                    yield index, f"{said}; use rule: words or squad"

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """Raises UserError for a reference without a number where numbers are compared."""
        for index, fault in self.reference_faults(references):
            raise UserError(f"example {index + 1}: {fault}")
        read = {"words": str.split, "squad": squad_words, "number": final_number}[self.rule]
        wanted = [read(reference) for reference in references]
        return [float(read(got) == want) for got, want in zip(predictions, wanted, strict=True)]


def squad_words(text: str) -> list[str]:
    """The words that SQuAD's evaluation script compares."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def final_number(text: str) -> Decimal | None:
    """The last number of a text, after "####" where the text has this mark; None without a number."""
    found = _NUMBER.findall(text.rpartition(_MARK)[2]) or _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
