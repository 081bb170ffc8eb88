"""Validation metrics: one file per metric, one YAML per metric in `conf/metric/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self


class ModelOutputs(NamedTuple):
    """What a model made of a set of examples, in order. What no metric asked for is None.

    `nll` is the negative log-likelihood of each reference given its prompt, in nats, summed over its `tokens` tokens.
    """

    references: Sequence[str]
    predictions: Sequence[str] | None = None
    nll: Sequence[float] | None = None
    tokens: Sequence[int] | None = None


class Measure(NamedTuple):
    """The value for the whole set, and columns of one value per example by suffix of the metric's name: "" is the
    metric itself, "/tokens" a statistic."""

    score: float
    columns: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A number from predictions and references, both as text: the mean over the examples."""

    higher_is_better: ClassVar[bool] = True
    worst: ClassVar[float] = 0.0
    needs_predictions: ClassVar[bool] = True
    needs_likelihood: ClassVar[bool] = False
    needs_numbers: ClassVar[bool] = False  # predictions and references are numbers, written out

    @abstractmethod
    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """One value per pair, in order. Paired tests need them."""

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """The value for the whole set."""
        values = self.per_example(predictions, references)
        return sum(values) / len(values)

    def measure(self, answers: ModelOutputs) -> Measure:
        """Score and per-example columns."""
        values = self.per_example(answers.predictions or [], answers.references)
        return Measure(sum(values) / len(values), {"": values})

    def facts(self) -> dict[str, str]:
        """What must be known to compare the value with others': kind of fact → its text."""
        return {}

    def label_faults(self, labels: Sequence[str]) -> Iterator[str]:
        """What is wrong with this metric for a classification into `labels`."""
        yield from ()

    def for_labels(self, labels: Sequence[str]) -> Self:
        """This metric for a classification into `labels`, in their order."""
        return self


@dataclass(frozen=True, kw_only=True)
class CorpusMetric(Metric):
    """A value for the whole set that is no mean over examples, such as BLEU.

    It follows from sums over the examples of a few sufficient statistics, and these are kept per example, as columns
    `<metric>/<statistic>`: whoever resamples examples adds the rows that were drawn, and applies the rule that the fact
    `corpus.<metric>` names.
    """

    @property
    @abstractmethod
    def rule(self) -> str:
        """The name of the formula from sums to the value."""

    @abstractmethod
    def statistics(self, answers: ModelOutputs) -> dict[str, list[float]]:
        """Columns of one number per example."""

    @abstractmethod
    def from_sums(self, sums: Mapping[str, float]) -> float:
        """The rule: the value from the statistics' sums."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """The rule over each example by itself. Their mean is not the score."""
        columns = self.statistics(ModelOutputs(references, predictions))
        rows = zip(*columns.values(), strict=True)
        return [self.from_sums(dict(zip(columns, row, strict=True))) for row in rows]

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        return self.measure(ModelOutputs(references, predictions)).score

    def measure(self, answers: ModelOutputs) -> Measure:
        statistics = self.statistics(answers)
        sums = {name: sum(values) for name, values in statistics.items()}
        return Measure(self.from_sums(sums), {f"/{name}": values for name, values in statistics.items()})

    def facts(self) -> dict[str, str]:
        return {"corpus": self.rule}
