"""What every variant shares while it trains: the group `train` of a config."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt


@dataclass(frozen=True, kw_only=True)
class Train:
    """What every variant shares while it trains. All of it belongs to the conditions."""

    max_steps: Annotated[int, Ge(1)] | None = None
    epochs: Annotated[float, Gt(0)] | None = None
    micro_batch_size: Annotated[int, Ge(1)]
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 1
    max_length: Annotated[int, Ge(2)]
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial"] = "cosine"
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.0
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
    adam_beta2: Annotated[float, Gt(0), Lt(1)] = 0.999
    weight_decay: Annotated[float, Ge(0)] = 0.0
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: bool = False
    group_by_length: bool = True
    eval_batch_size: Annotated[int, Ge(1)] = 64
    torch_compile: bool = False
    use_liger_kernel: bool = False
    eval_steps: Annotated[int, Ge(1)] | None = None
    devices_per_run: Annotated[int, Ge(1)] = 1
    parallelism: Literal["ddp", "fsdp"] = "ddp"

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.max_steps is None and self.epochs is None:
            yield "max_steps", "is missing; give it, or train.epochs"
        elif self.max_steps is not None and self.epochs is not None:
            yield "epochs", f"and max_steps = {self.max_steps} both set the length of training; set one of them to null"
        if self.parallelism == "fsdp" and self.devices_per_run == 1:
            yield "parallelism", "is fsdp, which splits a model over several devices: set train.devices_per_run too"
        if self.sharded and not self.optimizer.startswith("adamw_torch"):
            yield "optimizer", "is of bitsandbytes, which does not support sharded parameters; use adamw_torch_fused"
        if self.use_liger_kernel and self.label_smoothing:
            yield "label_smoothing", "needs the logits, which Liger's fused loss does not keep; set one of them only"

    @property
    def sharded(self) -> bool:
        """Whether each device holds a part of the model, and not all of it."""
        return self.parallelism == "fsdp" and self.devices_per_run > 1

    def with_steps(self, examples: int) -> Train:
        """The same with `max_steps` known: epochs are passes over the examples, the last batch of which is whole."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, max_steps=max(1, math.ceil(self.epochs * (examples // self.batch_size))))

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step, over all devices."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.devices_per_run
