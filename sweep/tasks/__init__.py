"""Tasks: examples → tensors for training, model outputs → predictions and scores. One file per kind of task."""

from __future__ import annotations

import posixpath
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from sweep.core.errors import alternatives
from sweep.datasets import Dataset, Example, Splits
from sweep.metrics import Metric, ModelOutputs

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

Encoded = Mapping[str, Any]  # token ids and labels of one example, unpadded
_METRIC_NAME = re.compile(r"[/\w.\- :]+")
IGNORED = -100  # the label that cross-entropy ignores


class EncodedDataset(list[Encoded]):
    """Encoded examples. `truncated` of them were cut to the longest length. `dropped` further examples were left out,
    since the cut left nothing to learn from."""

    def __init__(self, rows: Sequence[Encoded] = (), truncated: int = 0, dropped: int = 0):
        super().__init__(rows)
        self.truncated = truncated
        self.dropped = dropped


class Evaluation(NamedTuple):
    """Validation scores by metric name, and one row per example: its index, texts, and value of each metric. `facts`
    describe the scores (BLEU's signature); `truncated` is the number of examples that were cut."""

    scores: dict[str, float]
    rows: list[dict[str, Any]]
    facts: Mapping[str, str] = {}
    truncated: int = 0


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A kind of task over a data set."""

    task_type: ClassVar[str]  # PEFT's name for the kind of task
    auto_model: ClassVar[str]  # transformers' class `AutoModelFor…`
    is_causal: ClassVar[bool] = False  # causal models predict the next token
    problem: ClassVar[str] = "tokens"  # what labels are: tokens, one label, several labels, or a number

    data: Dataset
    """The data source."""
    metrics: dict[str, Metric]
    """Metrics by name. All are computed."""
    score: str
    """Name of the metric that decides."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.score not in self.metrics:
            yield "score", f"is not among task.metrics; {alternatives(self.score, list(self.metrics))}"
        for name, metric in self.metrics.items():
            if metric.needs_sets and self.problem != "several labels":
                yield "metrics", f"{name} is about sets of labels; it is for task=multi_label"
            if not _METRIC_NAME.fullmatch(name) or posixpath.normpath(f"eval/{name}") != f"eval/{name}":
                yield "metrics", f"{name!r} is no name of a metric in MLflow: use letters, digits, spaces and _ . - : /"

    @property
    def higher_is_better(self) -> bool:
        return self.metrics[self.score].higher_is_better

    def bind(self, splits: Splits) -> Self:
        """This task for these examples: they are checked, and what depends on them (the labels) is set.

        Raises:
            UserError: where the examples lack a role, or where a model cannot learn from them.
        """
        return self

    def remarks(self, splits: Splits) -> Iterator[str]:
        """A sentence for each doubtful trait of these examples, for the user to read before a run."""
        yield from ()

    def describe(self, splits: Splits) -> dict[str, float]:
        """Measurements of these examples, by their keys in the record."""
        return {}

    def for_base(self, config: PretrainedConfig) -> Self:
        """This task, bound, on a checkpoint with this config."""
        return self

    def inputs(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> Sequence[Sequence[int]]:
        """The token ids of each example, whole. Raises UserError for an example that cannot be encoded."""
        return [row["input_ids"] for row in self.encode(tokenizer, examples, sys.maxsize)]

    def lengths(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[int]:
        """How many tokens each example has, whole, as `train.max_length` counts them."""
        return [len(ids) for ids in self.inputs(tokenizer, examples)]

    def check(self, tokenizer: Tokenizer, validation: Sequence[Example], base: PretrainedConfig) -> None:  # noqa: B027
        """Check that the validation examples can be scored on a model with this config. Raises UserError."""

    def model_arguments(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Arguments of `from_pretrained` that this task needs in addition to the checkpoint."""
        return {}

    def auto_class(self) -> type:
        """The transformers class that loads the model."""
        import transformers

        return getattr(transformers, self.auto_model)

    @abstractmethod
    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
        """Training examples as token ids and labels, unpadded."""

    @abstractmethod
    def collator(self, tokenizer: Tokenizer) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        """A function that makes a batch of encoded examples, padded to the longest of them."""

    @abstractmethod
    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
        max_length: int | None = None,
    ) -> Evaluation:
        """The scores on `examples` of a model in evaluation mode.

        Args:
            metered: batch index → the context that the batch runs in.
            max_length: the longest length in training, in tokens; longer examples are cut. None for the model's limit.
        """

    def verify(self, model: torch.nn.Module, examples: Sequence[Encoded]) -> None:  # noqa: B027  most need no check
        """Check on this model what the task assumes about its treatment of encoded examples. Raises UserError."""

    def off_task_metrics(self, model: torch.nn.Module, tokenizer: Tokenizer, max_length: int) -> dict[str, float]:
        """Measurements on other data than the task's, made before and after training."""
        return {}

    def rehearsal(self) -> Self:
        """This task for an evaluation whose scores do not count: cheaper where it can be."""
        return self

    def usage(self) -> str:
        """What a user of the trained model has to know about its outputs; "" for nothing."""
        return ""

    def without_data(self) -> Self:
        """This task for a prediction of memory, which has lengths only: without the parts that depend on texts."""
        return self

    def measured(self, answers: ModelOutputs, rows: list[dict[str, Any]], truncated: int = 0) -> Evaluation:
        """All metrics of the answers. Their per-example values become columns of the rows."""
        scores: dict[str, float] = {}
        facts: dict[str, str] = {}
        for name, metric in self.metrics.items():
            score, columns = metric.measure(answers)
            scores[name] = score
            for suffix, values in columns.items():
                for row, value in zip(rows, values, strict=True):
                    row[f"{name}{suffix}"] = value
            facts.update({f"{kind}.{name}": text for kind, text in metric.facts().items()})
        return Evaluation(scores=scores, rows=rows, facts=facts, truncated=truncated)
