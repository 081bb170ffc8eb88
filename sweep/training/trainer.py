"""The Hugging Face Trainer with every label of a batch weighted equally."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from sweep.runtime import distributed, sharding
from sweep.tasks import IGNORED
from sweep.training.extensions import schedule

if TYPE_CHECKING:
    from sweep.core.construction import Construction
    from sweep.losses import Loss

OnMicroBatch = Callable[[torch.Tensor, torch.Tensor], None]  # its loss, and its number of non-padding tokens


class WeightedTrainer(Trainer):
    """The loss of an optimizer step is the mean over the labels of its whole batch, over all micro-batches and ranks.

    A model returns the mean over a micro-batch; this class multiplies it by the micro-batch's share of the labels. The
    plain Trainer (transformers 5.23) passes the batch's number of labels to the model, and the model must divide by it.
    Some models ignore the number, and their gradients are too large by the number of micro-batches. A classifier has
    one label per example, and the plain Trainer drops the first label as if it were a token.

    Args:
        is_causal: whether the model predicts each token from the tokens before it. Then the first label of a row has no
            loss.
        label_smoothing: the share of the probability that the loss spreads over all tokens.
        loss: instead of the model's own.
        schedule: of the learning rate, instead of that in the Trainer's arguments.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        on_micro_batch: OnMicroBatch,
        is_causal: bool,
        label_smoothing: float = 0.0,
        loss: Loss | None = None,
        schedule: Construction | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False
        self._on_micro_batch = on_micro_batch
        self._is_causal = is_causal
        self._label_smoothing = label_smoothing
        self._loss = loss
        self._schedule = schedule
        self._shares: deque[Any] = deque()

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.accelerator.ddp_handler is not None:
            # Under DDP, gradients are views into the buffers that are exchanged. By default PyTorch holds both: the
            # bytes of all gradients a second time on every device.
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        if self.args.fsdp:
            sharding.set_up(self)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, items = super().get_batch_samples(*args, **kwargs)
        counts = [self._count(batch["labels"]) for batch in batches]
        total = sum(counts)
        if distributed.joined():  # gradients are averaged over ranks
            total = distributed.total([float(total)])[0] / distributed.ranks()
        self._shares = deque(count / total for count in counts)
        return batches, items

    def _count(self, labels: torch.Tensor) -> Any:
        """The number of labels of a micro-batch that have a loss: one per example (which may be of
        several classes), or all tokens that are not ignored."""
        if labels.dim() == 1 or labels.is_floating_point():
            return len(labels)
        return ((labels[:, 1:] if self._is_causal else labels) != IGNORED).sum()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self._loss is not None:
            loss = self._own_loss(model, inputs)
        elif self._label_smoothing:
            loss = self._smoothed(model(**inputs).logits, inputs["labels"])
        else:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * self._shares.popleft()

    def _own_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The mean of `train.loss` over the labels of a micro-batch. An encoder-decoder makes its decoder's input from
        the labels; other models get none, and compute no loss of their own."""
        labels = inputs["labels"]
        to_decoder = labels.dim() > 1 and not labels.is_floating_point() and not self._is_causal
        logits = model(**inputs if to_decoder else {k: v for k, v in inputs.items() if k != "labels"}).logits
        count = self._count(labels)
        if labels.dim() > 1 and not labels.is_floating_point():
            logits, labels = self._aligned(logits, labels)
            logits, labels = logits.flatten(0, -2), labels.flatten()
        elif labels.is_floating_point() and labels.dim() == 1:
            logits = logits.squeeze(-1)
        return self._loss.per_label(logits.float(), labels).sum() / count

    def _aligned(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of each label. Prompt learning adds positions before the text: align at the end."""
        return (logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]) if self._is_causal else (logits, labels)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self._schedule is not None and self.lr_scheduler is None:
            self.lr_scheduler = schedule(self._schedule, optimizer or self.optimizer, num_training_steps, self.args)
        return super().create_scheduler(num_training_steps, optimizer)

    def _smoothed(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The smoothed loss. The Trainer's own smoother recognises causal models by the name of their class, and
        removes the labels from models that make their decoder's input from them."""
        logits, labels = self._aligned(logits, labels)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, -2).float(), labels.flatten(), label_smoothing=self._label_smoothing, ignore_index=IGNORED
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        tokens = inputs.pop("tokens") if "tokens" in inputs else inputs["attention_mask"].sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._on_micro_batch(loss, tokens)
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """No figure uses it, and to count all parameters in every micro-batch costs a tiny model 2% of its time."""
        return 0
