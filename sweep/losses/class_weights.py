"""Cross-entropy with a weight for each class, for classes of different sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from annotated_types import Ge

from sweep.core.errors import UserError, alternatives
from sweep.losses import Loss

if TYPE_CHECKING:
    import torch

    from sweep.tasks import Task


@dataclass(frozen=True, kw_only=True)
class ClassWeights(Loss):
    """w(y)·cross-entropy. By default w(y) = n / (k·n(y)), for n training examples in k classes of which n(y) have the
    label y: each class has the same sum of weights, and the mean weight is 1 (scikit-learn's "balanced")."""

    weights: dict[str, Annotated[float, Ge(0)]] | None = None
    """Weight by label; null balances the classes of the training examples."""
    ordered: tuple[float, ...] | None = None
    """The weights in the order of the labels. It is set from the data."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ordered is not None:
            yield "ordered", "is set from the data; give weights by the name of the label"
        if self.weights is not None and not any(self.weights.values()):
            yield "weights", "are all 0; give at least one label a weight"

    def task_faults(self, task: Task) -> Iterator[str]:
        if task.problem != "one label":
            yield "is for task=classification: it weighs one label out of several"

    def bind(self, names: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> Self:
        given = self.weights
        if given is None:
            counts = Counter(int(row["labels"]) for row in examples)
            total, present = sum(counts.values()), len(counts)
            return replace(self, ordered=tuple(total / (present * (counts[i] or total)) for i in range(len(names))))
        for name in given:
            if name not in names:
                raise UserError(f"train.loss.weights: {name!r} is not a label; {alternatives(name, names)}")
        if missing := [name for name in names if name not in given]:
            raise UserError(f"train.loss.weights has no weight for {missing[0]!r}; give each label one")
        return replace(self, ordered=tuple(given[name] for name in names))

    def per_label(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        import torch

        if self.ordered is None:
            raise ValueError("the weights are not known before bind()")
        weights = torch.tensor(self.ordered, dtype=logits.dtype, device=logits.device)
        return torch.nn.functional.cross_entropy(logits, labels, weight=weights, reduction="none")
