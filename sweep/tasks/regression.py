"""Regression: a text, or a pair of texts → a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sweep.core.errors import UserError
from sweep.datasets import Splits
from sweep.tasks.sequence_head import TextTask, check_texts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, kw_only=True)
class Regression(TextTask):
    """A new head with one output, trained with the mean squared error on the labels, which are not scaled."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for name, metric in self.metrics.items():
            if not metric.needs_numbers:
                yield "metrics", f"{name} is not about numbers; use pearson or spearman"

    def bind(self, splits: Splits) -> Self:
        """Raises UserError for a missing text or label, a label that is not a number, and a split with one label
        only."""
        for name, labels in check_texts(splits).items():
            wrong = next((label for label in labels if not _is_number(label)), None)
            if wrong is not None:
                raise UserError(
                    f"an example of the {name} split has the label {wrong!r}, which is not a number; use "
                    "task=classification for names of classes"
                )
            if len({float(label) for label in labels}) < 2 and name != "test":
                raise UserError(
                    f"the {name} split has no label but {labels[0]}: a model cannot learn from it or be measured on it"
                )
        return self

    def model_arguments(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression", "pad_token_id": tokenizer.pad_token_id}

    def number(self, label: str) -> float:
        return float(label)

    def answers(self, model: torch.nn.Module, logits: torch.Tensor) -> tuple[list[str], dict[str, list[Any]]]:
        return [f"{value:.9g}" for value in logits[:, 0].tolist()], {}  # every fp32 has a text of its own


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
