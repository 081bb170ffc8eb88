"""Classification: a text, or a pair of texts → one of a few labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sweep.core.errors import UserError, alternatives
from sweep.datasets import Splits
from sweep.metrics.f1 import in_order
from sweep.tasks.labels import head_order, listed, remarks, require_distinct, require_shared, value_of
from sweep.tasks.sequence_head import TextTask, check_texts, label_arguments

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

log = logging.getLogger(__name__)
_MOST_LABELS = 50  # with more, the labels may be numbers or texts


@dataclass(frozen=True, kw_only=True)
class Classification(TextTask):
    """A new head with one output for each label."""

    problem: ClassVar[str] = "one label"

    labels: list[str] | None = None
    """Labels in order; null is those of the data, in the order of the Hub's numbers, else by value or by text."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.labels is not None and len(set(map(value_of, self.labels))) < max(2, len(self.labels)):
            yield "labels", "must be at least two different ones"
        for name, metric in self.metrics.items():
            if metric.needs_likelihood:
                yield "metrics", f"{name} is about generated text; use accuracy, f1_macro, matthews or the like"
            elif metric.needs_numbers:
                yield "metrics", f"{name} is about numbers; use accuracy, f1_macro or matthews, or task=regression"

    def bind(self, splits: Splits) -> Self:
        """Sets the labels of training and validation together, so that a label in validation alone counts as missed.
        Labels are compared as values.

        Raises:
            UserError: for a missing text or label, a label that is not among `labels`, labels that differ in case only,
                a split with one label only, an unlabelled test split, and a metric that does not fit the labels.
        """
        counts = self._counts(splits)
        for name, found in counts.items():
            if len(found) < 2 and name != "test":
                raise UserError(
                    f"the {name} split has no label but {next(iter(found))!r} ({found.total()} examples): a model "
                    "cannot learn from it or be measured on it. The usual cause is a file that is sorted by label, and "
                    "cut: draw the rows at random from the whole file"
                )
        present = {*counts["train"], *counts["validation"]}
        named = self.labels or splits.labels
        labels = list(map(value_of, named)) if named else in_order(present)
        unknown = sorted(present - set(labels))
        if unknown:
            raise UserError(f"task.labels: the data also has {unknown[0]!r}; {alternatives(unknown[0], labels)}")
        if self.labels is None:
            require_distinct(labels)
        require_shared(counts)
        if len(labels) > _MOST_LABELS and len(labels) > len(splits.train) / 2:
            raise UserError(
                f"there are {len(labels)} different labels for {len(splits.train)} training examples, such as "
                f"{', '.join(map(repr, labels[:3]))}: is task.data.columns.label the right column? Use task=regression "
                "to predict numbers"
            )
        faults = [f"task.metrics.{n} {fault}" for n, m in self.metrics.items() for fault in m.label_faults(labels)]
        if faults:
            raise UserError("\n".join(faults))
        metrics = {name: metric.for_labels(labels) for name, metric in self.metrics.items()}
        return replace(self, labels=labels, metrics=metrics)

    def remarks(self, splits: Splits) -> Iterator[str]:
        yield from remarks(self._counts(splits), self._bound())

    def describe(self, splits: Splits) -> dict[str, float]:
        """The share of the validation examples whose label no training example has: a model cannot answer them."""
        counts = self._counts(splits)
        unseen = sum(count for label, count in counts["validation"].items() if label not in counts["train"])
        return {"data/unseen_label_fraction": unseen / counts["validation"].total()}

    def for_base(self, config: PretrainedConfig) -> Self:
        """With the labels in the order of the checkpoint's head, if that has the same names: the head then keeps its
        meaning, as in transformers' example scripts."""
        labels = self._bound()
        if not any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ()):
            return self
        order = head_order(labels, config.id2label)
        if order is None:
            log.warning("the checkpoint's head is for %s: a new one is made", listed(config.id2label.values()))
            return self
        log.warning("the checkpoint's head is kept: its labels are those of the data")
        return replace(self, labels=order)

    def model_arguments(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return label_arguments(self._bound(), "single_label_classification", tokenizer)

    def read(self, label: str) -> str:
        return value_of(label)

    def number(self, label: str) -> int:
        return self._bound().index(value_of(label))

    def answers(self, model: torch.nn.Module, logits: torch.Tensor) -> tuple[list[str], dict[str, list[Any]]]:
        """The most probable label of each example, with its probability as `confidence`."""
        labels = self.labels or [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        best = logits.softmax(-1).max(-1)
        return [labels[label] for label in best.indices.tolist()], {"confidence": best.values.tolist()}

    def without_data(self) -> Self:
        """With two labels: their number has no visible effect on memory."""
        return self if self.labels else replace(self, labels=["0", "1"])

    def _counts(self, splits: Splits) -> dict[str, Counter[str]]:
        return {name: Counter(map(value_of, given)) for name, given in check_texts(splits).items()}

    def _bound(self) -> list[str]:
        if self.labels is None:
            raise ValueError("the labels are not known before bind()")
        return self.labels
