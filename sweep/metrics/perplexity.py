"""Perplexity of the references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.metrics import CorpusMetric, ModelOutputs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Perplexity(CorpusMetric):
    """The exponential of the mean negative log-likelihood per token of the response and its end, given the prompt,
    or of a whole text.

    Tokens of all examples count the same. Values are comparable between models with the same tokenizer only.
    """

    higher_is_better: ClassVar[bool] = False
    worst: ClassVar[float] = math.inf
    needs_predictions: ClassVar[bool] = False
    needs_likelihood: ClassVar[bool] = True

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        if outputs.nll is None or outputs.tokens is None:
            raise ValueError("perplexity needs the likelihood of the references")
        return {"nll": list(outputs.nll), "tokens": [float(count) for count in outputs.tokens]}

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        import numpy as np

        with np.errstate(over="ignore"):  # too large for a float is infinite
            return np.exp(sums["nll"] / sums["tokens"])
