"""Focal loss: labels that the model predicts well count less (Lin et al. 2017, "Focal Loss for Dense Object
Detection", equation 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from sweep.losses import Loss

if TYPE_CHECKING:
    import torch

    from sweep.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Focal(Loss):
    """-(1 - p)^gamma · log(p), where p is the probability of the label. gamma = 0 is cross-entropy."""

    gamma: Annotated[float, Ge(0)] = 2.0
    """Exponent; the paper's is 2. The larger it is, the less do labels count that are predicted well."""

    def task_faults(self, task: Task) -> Iterator[str]:
        if task.problem == "number":
            yield "is for labels, and task=regression predicts numbers"

    def per_label(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        import torch

        if labels.is_floating_point():  # several labels of one example: each output is a decision of its own
            negative = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            return (self._factor(negative) * negative).mean(-1)
        negative = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return self._factor(negative) * negative

    def _factor(self, negative: torch.Tensor) -> torch.Tensor:
        """(1 - p)^gamma. Below gamma = 1 its slope at p = 1 is infinite, and the gradient of a certain label NaN."""
        missed = -(-negative).expm1()
        return missed.clamp_min(1e-12) ** self.gamma
