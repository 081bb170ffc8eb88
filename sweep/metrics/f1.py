"""F1 of labels: macro, weighted, or of one label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from sweep.core.errors import alternatives
from sweep.metrics import CorpusMetric, ModelOutputs, ratio

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class F1(CorpusMetric):
    """2·tp / (2·tp + fp + fn) of one label, or the mean over the labels of references and predictions.

    As scikit-learn's `f1_score`, where a label that is never predicted has 0.
    """

    counts_labels: ClassVar[bool] = True

    average: Literal["macro", "weighted", "binary"] = "macro"
    """Mean over labels (macro), mean weighted by frequency (weighted), or one label (binary)."""
    positive_label: str | None = None
    """The one label of `binary`; null is the last label in order: "yes" of "no" and "yes"."""

    def label_faults(self, labels: Sequence[str]) -> Iterator[str]:
        if self.average != "binary":
            return
        if self.positive_label is None and len(labels) != 2:
            yield f"needs two labels, and the data has {len(labels)}; use average: macro, or name a positive_label"
        elif self.positive_label is not None and self.positive_label not in labels:
            yield f"positive_label: {self.positive_label!r} is not a label; {alternatives(self.positive_label, labels)}"

    def for_labels(self, labels: Sequence[str]) -> Self:
        """The positive label is the last in the order of the task, which may differ from alphabetical order."""
        unnamed = self.average == "binary" and self.positive_label is None
        return replace(self, positive_label=labels[-1]) if unnamed else self

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """True positives, false positives and false negatives of each label: `tp_0` is of the first label; of the
        positive label alone, `tp`."""
        predictions, references = outputs.predictions or [], outputs.references
        labels = in_order({*predictions, *references})
        suffixes = [f"_{index}" for index in range(len(labels))]
        if self.average == "binary":
            labels, suffixes = [labels[-1] if self.positive_label is None else self.positive_label], [""]
        pairs = list(zip(predictions, references, strict=True))
        columns: dict[str, list[float]] = {}
        for suffix, label in zip(suffixes, labels, strict=True):
            columns[f"tp{suffix}"] = [float(got == label == wanted) for got, wanted in pairs]
            columns[f"fp{suffix}"] = [float(got == label != wanted) for got, wanted in pairs]
            columns[f"fn{suffix}"] = [float(got != label == wanted) for got, wanted in pairs]
        return columns

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        total = weights = 0.0
        for suffix in (name.removeprefix("tp") for name in sums if name.startswith("tp")):
            tp, fp, fn = (sums[f"{name}{suffix}"] for name in ("tp", "fp", "fn"))
            weight = tp + fn if self.average == "weighted" else 1.0 * (tp + fp + fn > 0)
            total = total + weight * ratio(2 * tp, 2 * tp + fp + fn)
            weights = weights + weight
        return ratio(total, weights)


def in_order(labels: set[str]) -> list[str]:
    """The labels sorted: by value where all are whole numbers, else as text."""
    numeric = all(label.lstrip("-").isdecimal() for label in labels)
    return sorted(labels, key=(lambda label: (int(label), label)) if numeric else str)
