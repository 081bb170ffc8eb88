"""What a model is trained to do: examples → tensors, predictions → text. One file per kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from sweep.core.errors import alternatives
from sweep.datasets import Dataset, Example, Splits
from sweep.metrics import Metric, ModelOutputs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Encoded = Mapping[str, Any]  # token ids and labels of one example, unpadded
IGNORED = -100  # the label that cross-entropy leaves out


class EncodedDataset(list[Encoded]):
    """Encoded examples. `truncated` of them were cut to the longest length, `dropped` ones are not among them: nothing
    to learn was left."""

    def __init__(self, rows: Sequence[Encoded] = (), truncated: int = 0, dropped: int = 0):
        super().__init__(rows)
        self.truncated = truncated
        self.dropped = dropped


class Evaluation(NamedTuple):
    """Validation scores by metric name, and one row per example: its index, texts, and value of each metric. `facts`
    belong to the scores (BLEU's signature); `truncated` examples did not fit whole."""

    scores: dict[str, float]
    rows: list[dict[str, Any]]
    facts: Mapping[str, str] = {}
    truncated: int = 0


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A kind of task over a data set."""

    task_type: ClassVar[str]  # PEFT's name for it
    is_causal: ClassVar[bool] = False  # causal models foretell a token at the position before it

    data: Dataset
    """The data source."""
    metrics: dict[str, Metric]
    """Metrics by name. All are computed."""
    score: str
    """Name of the metric that decides."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.score not in self.metrics:
            yield "score", f"is not among task.metrics; {alternatives(self.score, list(self.metrics))}"

    @property
    def higher_is_better(self) -> bool:
        return self.metrics[self.score].higher_is_better

    def bind(self, splits: Splits) -> Self:
        """This task for these examples, checked: what depends on the data (the labels) is known from here on.

        Raises:
            UserError: where the examples lack a role, or cannot be learnt from.
        """
        return self

    def check(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> None:  # noqa: B027
        """See that the tokenizer can write such examples. Raises UserError where it cannot."""

    def model_arguments(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """What `from_pretrained` must be told for this task, beside the checkpoint."""
        return {}

    @abstractmethod
    def auto_class(self) -> type:
        """The transformers `AutoModelFor…` class."""

    @abstractmethod
    def encode(
        self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int
    ) -> EncodedDataset:
        """Training examples as token ids and labels, unpadded."""

    @abstractmethod
    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        """Pads a batch to its own longest example."""

    @abstractmethod
    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
        max_length: int | None = None,
    ) -> Evaluation:
        """Scores on `examples`. Each batch runs inside `metered(batch index)`. `max_length` is the training's: longer
        examples are cut here as there; None is as long as the model can."""

    def verify(self, model: torch.nn.Module, examples: Sequence[Encoded]) -> None:  # noqa: B027  most need no check
        """Check that this very model treats encoded examples as this task takes for granted. Raises UserError."""

    def off_task_metrics(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> dict[str, float]:
        """Measurements of the model outside the task, made before and after training."""
        return {}

    def without_data(self) -> Self:
        """This task for a prediction of memory that knows lengths only: what depends on texts is left out."""
        return self

    def measured(self, answers: ModelOutputs, rows: list[dict[str, Any]], truncated: int = 0) -> Evaluation:
        """All metrics over the answers; their per-example columns are added to the rows."""
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
