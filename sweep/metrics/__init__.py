"""Validation metrics: one file per metric, one YAML per metric in `conf/metric/`."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from sweep.core.trusted_code import untrusted_package

if TYPE_CHECKING:
    import numpy as np

CORPUS = "corpus"  # the fact `corpus.<metric>`: class and options of a corpus metric, as JSON


class ModelOutputs(NamedTuple):
    """The outputs of a model for a set of examples, in order. What no metric needs is None."""

    references: Sequence[str]
    predictions: Sequence[str] | None = None
    nll: Sequence[float] | None = None  # of each reference given its prompt: negative log-likelihood in nats, summed
    tokens: Sequence[int] | None = None  # of each reference: `nll` is the sum over so many


class Measure(NamedTuple):
    """The value of a metric for the whole set, and its columns of one value per example by the suffix of their names:
    "" is the metric itself, "/tokens" is the statistic `tokens`."""

    score: float
    columns: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A number from predictions and references, both as text: the mean over the examples."""

    higher_is_better: ClassVar[bool] = True
    worst: ClassVar[float] = 0.0
    needs_predictions: ClassVar[bool] = True
    needs_likelihood: ClassVar[bool] = False
    needs_numbers: ClassVar[bool] = False  # predictions and references are numbers as text
    needs_sets: ClassVar[bool] = False  # predictions and references are JSON lists of labels
    counts_labels: ClassVar[bool] = False  # the whole text is one label

    @abstractmethod
    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """One value per pair, in order. Paired tests need these values."""

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        """The value for the whole set."""
        return self.measure(ModelOutputs(references, predictions)).score

    def measure(self, outputs: ModelOutputs) -> Measure:
        """The value for the whole set, and the columns per example."""
        values = self.per_example(outputs.predictions or [], outputs.references)
        return Measure(sum(values) / len(values), {"": values})

    def facts(self) -> dict[str, str]:
        """Facts that a comparison of values needs: kind of fact → text."""
        return {}

    def reference_faults(self, references: Sequence[str]) -> Iterator[tuple[int, str]]:
        """References that this metric cannot read: their place in the sequence, and what is wrong."""
        yield from ()

    def label_faults(self, labels: Sequence[str]) -> Iterator[str]:
        """What is wrong with this metric for a classification into `labels`."""
        yield from ()

    def for_labels(self, labels: Sequence[str]) -> Self:
        """This metric for a classification into `labels`, in their order."""
        return self


@dataclass(frozen=True, kw_only=True)
class CorpusMetric(Metric):
    """A value for the whole set that is not a mean over examples, such as BLEU.

    It follows from the sums of a few sufficient statistics over the examples. These statistics are kept per example, as
    columns `<metric>/<statistic>`. A resample of the examples has the value that follows from the sums over the drawn
    rows; the mean of per-example values would be another metric (Koehn 2004, "Statistical significance tests for
    machine translation evaluation"). The analysis rebuilds the metric from the fact `corpus.<metric>`.
    """

    @abstractmethod
    def statistics(self, outputs: ModelOutputs) -> dict[str, list[float]]:
        """Columns of one number per example."""

    @abstractmethod
    def from_sums(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values from the sums of each statistic: arrays of one shape, one element per set of examples."""

    def per_example(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """The value of each example alone. The mean of these is not the score."""
        import numpy as np

        columns = self.statistics(ModelOutputs(references, predictions))
        return self.from_sums({name: np.array(values, float) for name, values in columns.items()}).tolist()

    def measure(self, outputs: ModelOutputs) -> Measure:
        import numpy as np

        statistics = self.statistics(outputs)
        value = self.from_sums({name: np.sum(values, dtype=float) for name, values in statistics.items()})
        return Measure(float(value), {f"/{name}": values for name, values in statistics.items()})

    def facts(self) -> dict[str, str]:
        return {CORPUS: json.dumps({"_target_": f"{type(self).__module__}.{type(self).__qualname__}", **asdict(self)})}


def corpus_metric(text: str, packages: Collection[str] = ()) -> CorpusMetric:
    """The metric that a fact `corpus.<metric>` names. Its class is from `sweep`, or from one of `packages`.

    Raises:
        ValueError: where its class is of another package, cannot be imported or is not a corpus metric, or where it
            refuses the options.
    """
    try:
        options: dict[str, Any] = json.loads(text)
        target = options.pop("_target_")
        package = untrusted_package(target, packages)
        if package is not None:
            raise PermissionError(f"its class is from package {package}; if you trust it: packages=[{package}]")
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        if not issubclass(cls, CorpusMetric):
            raise TypeError(f"{name} is not derived from sweep.metrics.CorpusMetric")
        return cls(**options)
    except Exception as error:  # a module outside this package may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, element by element; 0 where the denominator is 0."""
    import numpy as np

    known = denominator != 0
    return np.where(known, numerator / np.where(known, denominator, 1.0), 0.0)
