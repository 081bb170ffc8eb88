"""What a model is trained to do: examples → tensors, predictions → text. One file per kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sweep.datasets import Dataset, Example
from sweep.errors import alternatives
from sweep.metrics import Metric

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Encoded = Mapping[str, list[int]]


class Evaluation(NamedTuple):
    """Validation scores by metric name, and one row per example: its index, texts, and value of each metric."""

    scores: dict[str, float]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A kind of task over a data set, judged by `metrics`. `score` names the metric that decides."""

    task_type: ClassVar[str]  # PEFT's name for it

    data: Dataset
    metrics: dict[str, Metric]
    score: str

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.score not in self.metrics:
            yield "score", f"is not among task.metrics; {alternatives(self.score, list(self.metrics))}"

    @property
    def higher_is_better(self) -> bool:
        return self.metrics[self.score].higher_is_better

    @abstractmethod
    def auto_class(self) -> type:
        """The transformers `AutoModelFor…` class."""

    @abstractmethod
    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Encoded]:
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
    ) -> Evaluation:
        """Scores on `examples`. Each batch runs inside `metered(batch index)`."""
