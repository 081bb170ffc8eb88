"""One model over several devices (FSDP2, by accelerate): each rank holds a part of every weight, and gathers a block's
weights while that block computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from transformers import Trainer


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter, gathered where it is in parts: then every rank must ask, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(model: torch.nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def set_up(trainer: Trainer) -> None:
    """What accelerate (1.15) leaves to be done, once the trainer has made its accelerator.

    On the CPU accelerate knows data parallelism alone, and would hold the whole model on every rank without a word;
    PyTorch shards over gloo as over NCCL. And in 16 bits accelerate would add up gradients and round the loss itself in
    them: here weights are gathered and multiplied in 16 bits, gradients summed and losses kept in 32.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        trainer.is_fsdp_enabled = True
    if state.mixed_precision != "no":
        compute = {"bf16": torch.bfloat16, "fp16": torch.float16}[state.mixed_precision]
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)


def arguments() -> dict[str, Any]:
    """For `TrainingArguments`: the blocks that the architecture names (or else the model as one) are gathered one at a
    time, and given back after forward and backward."""
    return {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True}}
