"""Losses of training instead of the model's own: one file per loss, one YAML per loss in `conf/loss/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

    from sweep.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Loss(ABC):
    """The loss of each label, from the model's outputs.

    A loss does not average. The Trainer takes the mean over the labels of the whole batch, so that k micro-batches of b
    examples give the gradients of one batch of k·b, with every loss.
    """

    @abstractmethod
    def per_label(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One loss for each label, in the shape of the first dimension.

        Args:
            logits: fp32, (labels, outputs). For a causal model, row i is the prediction of label i already.
            labels: (labels,) of whole numbers, and `sweep.tasks.IGNORED` where there is no label: its loss must be 0.
                (labels,) of numbers for a regression; (examples, outputs) of 0 and 1 for a multi-label classification,
                where one row is one label.
        """

    def task_faults(self, task: Task) -> Iterator[str]:
        """What is wrong with this loss for a task."""
        yield from ()

    def bind(self, names: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> Self:
        """This loss for the labels' names and the encoded training examples of a classification. UserError where they
        do not fit."""
        return self


def bound(loss: Loss | None, task: Task, examples: Sequence[Mapping[str, Any]]) -> Loss | None:
    """The loss for a task with its data."""
    names = getattr(task, "labels", None)
    return loss.bind(names, examples) if loss is not None and names else loss
