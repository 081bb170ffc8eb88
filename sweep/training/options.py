"""The config group `train`: what all variants share while they train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from sweep import losses
from sweep.core.construction import Construction
from sweep.losses import Loss
from sweep.training import trainer_arguments

if TYPE_CHECKING:
    from sweep.tasks import Encoded, Task
    from sweep.variants import Variant

_BETA2 = 0.999  # AdamW's default


@dataclass(frozen=True, kw_only=True)
class Train:
    """How all variants train. All keys are conditions."""

    max_steps: Annotated[int, Ge(1)] | None = None
    """Number of optimizer steps. Either this or `epochs` is null."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Number of passes over the training examples."""
    micro_batch_size: Annotated[int, Ge(1)]
    """Examples in one forward and backward pass on one device."""
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 1
    """Micro-batches in one optimizer step on one device."""
    max_length: Annotated[int, Ge(2)] | None
    """Longest example in tokens, prompt and response together. Longer ones are cut. null: 95% of them are not."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial"] | Construction = (
        "cosine"
    )
    """Schedule of the learning rate: its name in Transformers, or a class or function by `_target_`."""
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    optimizer: (
        Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
        | Construction
    )
    """Optimizer: its name in Transformers, which a quantised variant may replace on CUDA, or a class by `_target_`."""
    loss: Loss | None = None
    """Loss of training; null is the model's own. `+loss@train.loss=focal` takes a preset."""
    callbacks: list[Construction] = field(default_factory=list)
    """Callbacks of Transformers' Trainer, each by its `_target_`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of Transformers' TrainingArguments, by name."""
    early_stopping_patience: Annotated[int, Ge(1)] | None = None
    """Evaluations without a better score after which a run stops; null never stops. It needs `eval_steps`."""
    adam_beta2: Annotated[float, Gt(0), Lt(1)] = _BETA2
    """Decay of AdamW's average of squared gradients."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Weight decay of AdamW."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of each label's probability that is spread over all labels."""
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    """Gradients with a larger norm are scaled down to this norm. 0 clips nothing."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products. `auto` is bf16 if the GPU supports it, and fp32 on the CPU."""
    trained_weights: Literal["fp32", "checkpoint"] = "fp32"
    """Type of the weights while they train. `checkpoint` keeps 16 bits: half the memory, and small updates are lost."""
    activation_checkpointing: bool = False
    """Whether the backward pass computes activations again: less memory, more time."""
    group_by_length: bool = True
    """Whether examples of similar length share a micro-batch."""
    eval_batch_size: Annotated[int, Ge(1)] = 64
    """Examples in one batch of evaluation."""
    torch_compile: bool = False
    """Whether `torch.compile` compiles the model for training."""
    use_liger_kernel: bool = False
    """Whether training uses the fused kernels of the package liger-kernel (CUDA only)."""
    eval_steps: Annotated[int, Ge(1)] | None = None
    """Optimizer steps between evaluations; null evaluates at the end only. Pruning needs it."""
    devices_per_run: Annotated[int, Ge(1)] = 1
    """Devices that train one run together. The batch of an optimizer step grows by this factor."""
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    """Across devices: `ddp` holds the whole model on each, `fsdp` a part of it."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.max_steps is None and self.epochs is None:
            yield "max_steps", "is missing; give it, or train.epochs"
        elif self.max_steps is not None and self.epochs is not None:
            yield "epochs", f"and max_steps = {self.max_steps} both set the length of training; set one of them to null"
        if self.parallelism == "fsdp" and self.devices_per_run == 1:
            yield "parallelism", "is fsdp, which splits a model over several devices: set train.devices_per_run too"
        if self.sharded and isinstance(self.optimizer, str) and not self.optimizer.startswith("adamw_torch"):
            yield "optimizer", "is of bitsandbytes, which does not support sharded parameters; use adamw_torch_fused"
        if self.sharded and self.trained_weights == "checkpoint":
            yield "trained_weights", "is checkpoint, but accelerate trains weights in fp32 under fsdp; use fp32"
        if self.use_liger_kernel and self.label_smoothing:
            yield "label_smoothing", "needs the logits, which Liger's fused loss does not keep; set only one of the two"
        if self.early_stopping_patience is not None and self.eval_steps is None:
            yield "early_stopping_patience", "counts evaluations during training: set train.eval_steps too"
        yield from self._faults_of_extensions()

    def _faults_of_extensions(self) -> Iterator[tuple[str, str]]:
        if self.loss is not None and self.use_liger_kernel:
            yield "use_liger_kernel", "has a fused loss of its own, and train.loss is another; set only one of the two"
        if self.loss is not None and self.label_smoothing:
            yield "label_smoothing", "changes the model's own loss, and train.loss replaces it; set only one of the two"
        for message in trainer_arguments.faults(self.arguments):
            yield "arguments", message
        for message in trainer_arguments.callback_faults(self.callbacks):
            yield "callbacks", message
        if isinstance(self.optimizer, Construction):
            if given := sorted({"lr", "learning_rate", "params"} & self.optimizer.options.keys()):
                yield "optimizer", f"{given[0]} is set by variant.learning_rate, so that each variant has its own rate"
            if self.adam_beta2 != _BETA2:
                yield (
                    "adam_beta2",
                    "is of Transformers' AdamW; give a class its own options, such as train.optimizer.betas",
                )

    @property
    def sharded(self) -> bool:
        """Whether each device holds only a part of the model."""
        return self.parallelism == "fsdp" and self.devices_per_run > 1

    def with_steps(self, examples: int) -> Train:
        """These options with `max_steps` instead of `epochs`, from the number of examples; batches are whole."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, max_steps=max(1, math.ceil(self.epochs * (examples // self.batch_size))))

    def optimizer_of(self, variant: Variant, device_type: str) -> str:
        """The optimizer's name. A variant may replace one of Transformers', and no class of another package."""
        if isinstance(self.optimizer, Construction):
            return self.optimizer.target
        return variant.optimizer(device_type) or self.optimizer

    def with_loss(self, task: Task, examples: Sequence[Encoded]) -> Train:
        """These options with the loss for the labels of the encoded training examples."""
        return self if self.loss is None else replace(self, loss=losses.bound(self.loss, task, examples))

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step, over all devices."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.devices_per_run
