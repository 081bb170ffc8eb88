"""Multi-label classification: a text, or a pair of texts → any number of a few labels."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from annotated_types import Gt, Lt

from sweep.core.errors import UserError, alternatives
from sweep.datasets import Example, Splits, place_of
from sweep.metrics.f1 import in_order
from sweep.metrics.multi_label_f1 import MultiLabelF1, as_set, as_text
from sweep.tasks import Evaluation
from sweep.tasks.labels import remarks, require_distinct, require_shared, value_of
from sweep.tasks.sequence_head import TextTask, check_texts, label_arguments

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer

_MOST_LABELS = 200


@dataclass(frozen=True, kw_only=True)
class MultiLabel(TextTask):
    """A new head with one output for each label, and a decision for each: BCE loss, the mean over labels and examples.

    The label column has a list, JSON text of a list, or names with a separator between them. `[]` is no label.
    """

    problem: ClassVar[str] = "several labels"

    labels: list[str] | None = None
    """Labels in order; null is those of the data."""
    separator: str = ","
    """What stands between the names of labels in a text."""
    cutoff: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Probability above which a label is an answer."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if not self.separator:
            yield "separator", "is empty; name the text between two labels"
        if self.labels is not None and len(set(map(value_of, self.labels))) < max(1, len(self.labels)):
            yield "labels", "must be different ones, at least one"
        for name, metric in self.metrics.items():
            if metric.needs_likelihood or metric.needs_numbers or metric.counts_labels:
                yield "metrics", f"{name} is not about sets of labels; use multi_label_f1_micro, _macro, or accuracy"

    def bind(self, splits: Splits) -> Self:
        """Sets the labels of training and validation together.

        Raises:
            UserError: for a missing text or label, a label that is not among `labels`, labels that differ in case only,
                and a training split without any label.
        """
        check_texts(splits, sets=True)
        counts = self._counts(splits)
        present = {*counts["train"], *counts["validation"]}
        if not counts["train"]:
            raise UserError("no training example has a label: a model cannot learn from them")
        named = self.labels or splits.labels
        labels = list(map(value_of, named)) if named else in_order(present)
        if unknown := sorted(present - set(labels)):
            raise UserError(f"task.labels: the data also has {unknown[0]!r}; {alternatives(unknown[0], labels)}")
        if self.labels is None:
            require_distinct(labels)
        require_shared(counts)
        if len(labels) > _MOST_LABELS and len(labels) > len(splits.train) / 2:
            raise UserError(
                f"there are {len(labels)} different labels for {len(splits.train)} training examples, such as "
                f"{', '.join(map(repr, labels[:3]))}: is task.separator = {self.separator!r} right?"
            )
        return replace(self, labels=labels)

    def remarks(self, splits: Splits) -> Iterator[str]:
        yield from remarks(self._counts(splits), self._bound())

    def describe(self, splits: Splits) -> dict[str, float]:
        """The share of the validation examples with a label that no training example has."""
        known = self._counts(splits)["train"]
        unseen = sum(any(label not in known for label in self._set(e["label"])) for e in splits.validation)
        return {"data/unseen_label_fraction": unseen / len(splits.validation)}

    def model_arguments(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return label_arguments(self._bound(), "multi_label_classification", tokenizer)

    def read(self, label: str) -> str:
        return as_text(self._set(label), self._bound())

    def number(self, label: str) -> list[float]:  # type: ignore[override]
        found = self._set(label)
        return [float(name in found) for name in self._bound()]

    def answers(self, model: torch.nn.Module, logits: torch.Tensor) -> tuple[list[str], dict[str, list[Any]]]:
        """The labels above the cutoff, as JSON text of a list in the order of the labels."""
        labels = self._bound()
        chosen = (logits.sigmoid() > self.cutoff).tolist()
        return [as_text({n for n, yes in zip(labels, row, strict=True) if yes}, labels) for row in chosen], {}

    def evaluate(self, *args: Any, **kwargs: Any) -> Evaluation:
        """Also the F1 of each label, as `f1/<label>`; none for a label that no example has."""
        found = super().evaluate(*args, **kwargs)
        references = [str(row["reference"]) for row in found.rows]
        predictions = [str(row["prediction"]) for row in found.rows]
        by_label = {}
        for label in self._bound():
            if any(label in as_set(text) for text in references):
                score = MultiLabelF1(only=label).score(predictions, references)
                by_label[f"f1/{re.sub(r'[^/.: -]', _allowed, label)}"] = score
        return found._replace(scores={**by_label, **found.scores})

    def usage(self) -> str:
        return f"A label is an answer where the sigmoid of its output exceeds {self.cutoff:g}."

    def without_data(self) -> Self:
        return self if self.labels else replace(self, labels=["0", "1"])

    def _counts(self, splits: Splits) -> dict[str, Counter[str]]:
        counts = {}
        for name in ("train", "validation", "test"):
            sets = [self._set_at(example, index, name) for index, example in enumerate(getattr(splits, name))]
            counts[name] = Counter(label for found in sets for label in found)
        return counts

    def _set_at(self, example: Example, index: int, split: str) -> set[str]:
        try:
            return self._set(example["label"])
        except ValueError as error:
            where = f"{place_of(example, index)} of the {split} split"
            raise UserError(f"{where}: the labels {example['label']!r} are no list: {error}") from error

    def _set(self, label: str) -> set[str]:
        text = label.strip()
        if not text.startswith("["):
            return {value_of(part) for part in text.split(self.separator) if part.strip()}
        listed = json.loads(text)
        return {value_of(str(part)) for part in listed}

    def _bound(self) -> list[str]:
        if self.labels is None:
            raise ValueError("the labels are not known before bind()")
        return self.labels


def _allowed(found: re.Match[str]) -> str:
    """A character in a name of MLflow."""
    return found[0] if found[0].isalnum() and found[0].isascii() else "_"
