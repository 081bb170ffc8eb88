"""Evaluation of a run's model on the validation examples: before, during and after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from sweep.metrics.standard_error import standard_error
from sweep.runtime import precision
from sweep.tasks import Evaluation, Task
from sweep.training.options import Train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sweep.datasets import Example

_FEW = 2  # examples of a rehearsal


class Evaluator(NamedTuple):
    """Evaluates a model on the validation examples, in the precision of training."""

    task: Task
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    validation: Sequence[Example]
    train: Train
    device: str

    def evaluate(self, metered: Callable[[int], AbstractContextManager[None]]) -> Evaluation:
        """`metered` gives the context of each batch, by its number."""
        self.model.eval()
        with precision.autocast(self.train.precision, self.device):
            return self.task.evaluate(
                self.model,
                self.tokenizer,
                self.validation,
                self.train.eval_batch_size,
                metered=metered,
                max_length=self.train.max_length,
            )

    def rehearse(self) -> None:
        """Evaluate two examples with the untrained model, before the training is paid for: evaluation can fail in ways
        that training does not. Neither the random state nor the measurements change."""
        with torch.random.fork_rng():
            few = self._replace(task=self.task.rehearsal(), validation=self.validation[:_FEW])
            few.evaluate(lambda batch: nullcontext())

    def evaluate_during_training(self) -> tuple[float, float]:
        """The score, and the standard error of its mean over the examples; infinite where the score is not a mean."""
        found = self.evaluate(lambda batch: nullcontext())
        values = [row[self.task.score] for row in found.rows if self.task.score in row]
        return found.scores[self.task.score], standard_error(values)

    def off_task_metrics(self) -> dict[str, float]:
        """Metrics on data of other tasks, which show what the model forgets."""
        with precision.autocast(self.train.precision, self.device):
            return self.task.off_task_metrics(self.model, self.tokenizer, self.train.max_length)
