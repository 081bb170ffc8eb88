"""The config group `train`: what all variants share while they train."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt


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
    max_length: Annotated[int, Ge(2)]
    """Longest example in tokens, prompt and response together. Longer ones are cut."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial"] = "cosine"
    """Schedule of the learning rate, by its name in Transformers."""
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
    """Optimizer, by its name in Transformers. A quantised variant may replace it on CUDA."""
    adam_beta2: Annotated[float, Gt(0), Lt(1)] = 0.999
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
        if self.sharded and not self.optimizer.startswith("adamw_torch"):
            yield "optimizer", "is of bitsandbytes, which does not support sharded parameters; use adamw_torch_fused"
        if self.sharded and self.trained_weights == "checkpoint":
            yield "trained_weights", "is checkpoint, but accelerate trains weights in fp32 under fsdp; use fp32"
        if self.use_liger_kernel and self.label_smoothing:
            yield "label_smoothing", "needs the logits, which Liger's fused loss does not keep; set only one of the two"

    @property
    def sharded(self) -> bool:
        """Whether each device holds only a part of the model."""
        return self.parallelism == "fsdp" and self.devices_per_run > 1

    def with_steps(self, examples: int) -> Train:
        """These options with `max_steps` instead of `epochs`, from the number of examples; batches are whole."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, max_steps=max(1, math.ceil(self.epochs * (examples // self.batch_size))))

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step, over all devices."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.devices_per_run
