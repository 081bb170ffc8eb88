"""Regression: a text, or a pair of texts → a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from annotated_types import Gt

from sweep.core.errors import UserError
from sweep.datasets import Splits, place_of
from sweep.tasks.sequence_head import TextTask, check_texts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, kw_only=True)
class Regression(TextTask):
    """A new head with one output, trained with the mean squared error on standardised labels. Answers have the scale of
    the labels.

    A new head answers about 0 ± 1, and the learning rates of fine-tuning would not carry it to 20, 50 or 80.
    """

    problem: ClassVar[str] = "number"

    center: float | None = None
    """Label that the head learns as 0; null is the mean of the training labels."""
    scale: Annotated[float, Gt(0)] | None = None
    """Difference of labels that the head learns as 1; null is the standard deviation of the training labels."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for name, metric in self.metrics.items():
            if not metric.needs_numbers:
                yield "metrics", f"{name} is not about numbers; use pearson, spearman, rmse or r2"

    def bind(self, splits: Splits) -> Self:
        """Sets `center` and `scale` where they are not given.

        Raises:
            UserError: for a missing text or label, a label that is not a number, and a split with one label only.
        """
        for name, labels in check_texts(splits).items():
            wrong = next((index for index, label in enumerate(labels) if not _is_number(label)), None)
            if wrong is not None:
                raise UserError(
                    f"{place_of(getattr(splits, name)[wrong], wrong)} of the {name} split has the label "
                    f"{labels[wrong]!r}, which is not a number; use task=classification for names of classes"
                )
            if len({float(label) for label in labels}) < 2 and name != "test":
                raise UserError(
                    f"the {name} split has no label but {labels[0]}: a model cannot learn from it or be measured on it"
                )
        numbers = [float(example["label"]) for example in splits.train]
        return replace(
            self,
            center=fmean(numbers) if self.center is None else self.center,
            scale=pstdev(numbers) if self.scale is None else self.scale,
        )

    def model_arguments(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression", "pad_token_id": tokenizer.pad_token_id}

    def number(self, label: str) -> float:
        center, scale = self._bound()
        return (float(label) - center) / scale

    def answers(self, model: torch.nn.Module, logits: torch.Tensor) -> tuple[list[str], dict[str, list[Any]]]:
        center, scale = self._bound()
        values = (center + scale * value for value in logits[:, 0].tolist())
        return [f"{value:.9g}" for value in values], {}  # every fp32 has a text of its own

    def usage(self) -> str:
        center, scale = self._bound()
        return f"The label is {center:.9g} + {scale:.9g} × the model's output."

    def without_data(self) -> Self:
        return replace(self, center=0.0, scale=1.0)

    def _bound(self) -> tuple[float, float]:
        if self.center is None or self.scale is None:
            raise ValueError("the scale of the labels is not known before bind()")
        return self.center, self.scale


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
