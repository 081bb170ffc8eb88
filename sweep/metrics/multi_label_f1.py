"""F1 of sets of labels: micro, macro, or of one label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from sweep.metrics import CorpusMetric, ModelOutputs, ratio
from sweep.metrics.f1 import in_order

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class MultiLabelF1(CorpusMetric):
    """2·tp / (2·tp + fp + fn), from the counts of all labels together (micro), or as the mean over labels (macro).

    As scikit-learn's `f1_score` on the indicator matrix, except that a label which no reference and no prediction has
    does not count in the macro mean. Texts are JSON lists of labels.
    """

    needs_sets: ClassVar[bool] = True

    average: Literal["micro", "macro"] = "micro"
    """Over all decisions (micro), or the mean over labels (macro)."""
    only: str | None = None
    """One label, instead of all."""

    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """True positives, false positives and false negatives: of all labels together, or of each: `tp_0` is of the
        first label."""
        got, wanted = ([as_set(text) for text in texts] for texts in (outputs.predictions or [], outputs.references))
        if self.average == "micro":
            groups = {"": {self.only} if self.only is not None else None}
        else:
            labels = in_order(set().union(*got, *wanted)) if self.only is None else [self.only]
            groups = {f"_{index}": {label} for index, label in enumerate(labels)}
        columns: dict[str, list[float]] = {}
        for suffix, group in groups.items():
            pairs = [(a if group is None else a & group, b if group is None else b & group)
                     for a, b in zip(got, wanted, strict=True)]  # fmt: skip
            columns[f"tp{suffix}"] = [float(len(a & b)) for a, b in pairs]
            columns[f"fp{suffix}"] = [float(len(a - b)) for a, b in pairs]
            columns[f"fn{suffix}"] = [float(len(b - a)) for a, b in pairs]
        return columns

    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        total = weights = 0.0
        for suffix in (name.removeprefix("tp") for name in sums if name.startswith("tp")):
            tp, fp, fn = (sums[f"{name}{suffix}"] for name in ("tp", "fp", "fn"))
            total = total + ratio(2 * tp, 2 * tp + fp + fn)
            weights = weights + 1.0 * (tp + fp + fn > 0)
        return ratio(total, weights)


def as_text(labels: Iterable[str], order: Sequence[str]) -> str:
    """A set of labels as text, in their order."""
    found = set(labels)
    return json.dumps([label for label in order if label in found], ensure_ascii=False)


def as_set(text: str) -> frozenset[str]:
    """The set that a text of `as_text` stands for."""
    return frozenset(json.loads(text))
