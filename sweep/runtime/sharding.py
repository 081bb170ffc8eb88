"""One model over several devices (FSDP2, by accelerate): each rank holds a part of every weight, and gathers the
weights of a block while the block computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from transformers import Trainer


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole parameter, gathered if it is sharded: then every rank must call this, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(model: torch.nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def set_up(trainer: Trainer) -> None:
    """Complete the accelerator (accelerate 1.15) that the trainer has created.

    In 16 bits, accelerate sums the gradients and rounds the loss in 16 bits too. Here weights are gathered and
    multiplied in 16 bits, and gradients are summed and losses kept in 32 bits.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = trainer.accelerator.state
    if state.mixed_precision != "no":
        compute = {"bf16": torch.bfloat16, "fp16": torch.float16}[state.mixed_precision]
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)


def arguments() -> dict[str, Any]:
    """For `TrainingArguments`. The blocks that the architecture names, or else the whole model, are gathered one at a
    time, and released after forward and backward."""
    return {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True}}
