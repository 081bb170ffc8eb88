"""The Hugging Face Trainer, with our order of examples, every label of a batch counting the same."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import torch
from transformers import Trainer

from sweep.runtime import distributed, sharding
from sweep.tasks import IGNORED


class Watcher(Protocol):
    """Is told of what comes out of each micro-batch, and of each step's gradient."""

    def saw_micro_batch(self, loss: torch.Tensor, tokens: torch.Tensor) -> None: ...

    def saw_gradient_norm(self, norm: Any) -> None: ...


class WeightedTrainer(Trainer):
    """The loss of an optimizer step is the mean over the labels of its whole batch, over all micro-batches and ranks.

    A model gives the mean over a micro-batch; it is weighed here by that micro-batch's share of the labels. The plain
    Trainer (transformers 5.23) hands models the batch's number of labels and trusts them to divide by it: some do not
    look, so that their gradients come out too large by the number of micro-batches, and of a classifier's labels, one
    per example, it drops the first as if they were tokens. With `is_causal`, a row's first label has no loss:
    causal models foretell a token at the position before it.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, *, order: list[int], watcher: Watcher, is_causal: bool, label_smoothing: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False
        self._order = order
        self._watcher = watcher
        self._is_causal = is_causal
        self._label_smoothing = label_smoothing
        self._shares: deque[Any] = deque()

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Under DDP, gradients are views into what is sent around, where PyTorch would hold both: on every device, the
        bytes of all gradients once less."""
        arguments = super()._build_accelerator_args(**kwargs)
        for handler in arguments["kwargs_handlers"]:
            handler.gradient_as_bucket_view = True
        return arguments

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            sharding.set_up(self)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> list[int]:
        return self._order

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, items = super().get_batch_samples(*args, **kwargs)
        counts = [self._count(batch["labels"]) for batch in batches]
        whole = sum(counts)
        if distributed.joined():  # gradients are averaged over ranks
            whole = distributed.total([float(whole)])[0] / distributed.ranks()
        self._shares = deque(count / whole for count in counts)
        return batches, items

    def _count(self, labels: torch.Tensor) -> Any:
        """How many labels of a micro-batch have a loss: one per example, or those of tokens that are not ignored."""
        if labels.dim() == 1:
            return len(labels)
        return ((labels[:, 1:] if self._is_causal else labels) != IGNORED).sum()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self._label_smoothing:
            loss = self._smoothed(model(**inputs).logits, inputs["labels"])
        else:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * self._shares.popleft()

    def _smoothed(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Not by the Trainer's own smoother, which knows causal models by their class's name, and takes the labels away
        from those that make their decoder's input of them."""
        if self._is_causal:  # prompt learning puts positions before the text: align at the end
            logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, -2).float(), labels.flatten(), label_smoothing=self._label_smoothing, ignore_index=IGNORED
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        tokens = inputs.pop("tokens") if "tokens" in inputs else inputs["attention_mask"].sum()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._watcher.saw_micro_batch(loss, tokens)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._watcher.saw_gradient_norm(norm)
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody asks, and counting all parameters in every micro-batch costs a tiny model a fiftieth of its time."""
        return 0
