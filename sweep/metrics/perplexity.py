"""Perplexity of the references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs


@dataclass(frozen=True, kw_only=True)
class Perplexity(CorpusMetric):
    """e to the mean negative log-likelihood per token of the response and its end, given the prompt. Tokens of all
    examples count the same. Comparable between models of one tokenizer only."""

    higher_is_better: ClassVar[bool] = False
    worst: ClassVar[float] = math.inf
    needs_predictions: ClassVar[bool] = False
    needs_likelihood: ClassVar[bool] = True

    @property
    def rule(self) -> str:
        return "perplexity"

    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        if answers.nll is None or answers.tokens is None:
            raise ValueError("perplexity needs the likelihood of the references")
        return {"nll": list(answers.nll), "tokens": [float(count) for count in answers.tokens]}

    def from_sums(self, sums: Mapping[str, float]) -> float:
        mean = sums["nll"] / sums["tokens"]
        return math.exp(mean) if mean < 700 else math.inf
