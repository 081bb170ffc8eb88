"""What stands in for the machine while a run is executed on fake tensors: every patch, in one place.

For a process of its own, since all of it is undone only at the end. Each patch answers a question that cannot be asked
of a fake tensor, or of a GPU that is not there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_post_hook

from sweep.memory.prediction import Machine
from sweep.memory.simulation import cuda_kernels, fake_device
from sweep.memory.simulation.allocation_log import BACKWARD, OPTIMIZER, EventLog


@contextmanager
def machine(described: Machine, log: EventLog, *, padded: bool, kernel: str | None, seen: set[str]) -> Iterator[str]:
    """Inside, tensors are fake, on a device like the one described; yields the device's name. `log` is told of
    the parts of a step, and is to be entered. `kernel` forces the attention kernel; `seen` collects those that ran."""
    cuda_kernels.know_bitsandbytes()
    cuda_kernels.know_grouped_product()
    with ExitStack() as stack:
        if described.kind == "cuda":
            device = fake_device.register()
            for patch in _cuda(described, kernel, seen):
                stack.enter_context(patch)
        else:
            device = "cpu"
            stack.enter_context(mock.patch.multiple(torch, get_rng_state=_rng_state, set_rng_state=lambda state: None))
        stack.enter_context(_masks(padded))
        stack.enter_context(_parts(log))
        stack.callback(register_optimizer_step_post_hook(lambda optimizer, *_: _tell_state(optimizer, log)).remove)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield device


@contextmanager
def _masks(padded: bool) -> Iterator[None]:
    """transformers looks at the mask's values to see whether it can do without one, and takes fake tensors for tracing,
    where it never does without. Its other conditions stay: sequences longer than a sliding window need a mask."""
    from transformers import masking_utils

    def all_inside(kv_length: int, window: int | None) -> bool:
        return window is None or kv_length < window

    def without_causal(padding_mask, q_length, kv_length, q_offset, kv_offset, local_attention_size=None):
        whole = q_length in (1, kv_length)
        return not padded and whole and all_inside(kv_length, local_attention_size)

    def without_bidirectional(padding_mask, kv_length, local_attention_size=None):
        return not padded and all_inside(kv_length, local_attention_size)

    answers: dict[str, Any] = {
        "find_packed_sequence_indices": lambda position_ids: None,
        "_ignore_causal_mask_sdpa": without_causal,
        "_ignore_bidirectional_mask_sdpa": without_bidirectional,
    }
    with mock.patch.multiple(masking_utils, **answers):
        yield


@contextmanager
def _parts(log: EventLog) -> Iterator[None]:
    """Tell the log where backward begins and ends."""
    backward = torch.Tensor.backward

    def told(*args: Any, **kwargs: Any) -> None:
        log.part = BACKWARD
        backward(*args, **kwargs)
        log.enter(OPTIMIZER)

    with mock.patch.object(torch.Tensor, "backward", told):
        yield


def _tell_state(optimizer: torch.optim.Optimizer, log: EventLog) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                log.add(value, "optimizer_state")


def _rng_state() -> torch.Tensor:
    """Checkpointing keeps the state of the CPU's generator for each layer. The real one is no fake tensor."""
    return torch.empty(5056, dtype=torch.uint8)


def _cuda(described: Machine, kernel: str | None, seen: set[str]) -> Iterator[Any]:
    """What a GPU of this kind would answer."""
    import bitsandbytes.functional
    import transformers.training_args
    from torch.utils import _foreach_utils

    yield mock.patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=fake_device.DEVICE)
    yield mock.patch.object(transformers.training_args, "is_torch_bf16_gpu_available", return_value=True)
    # torch takes its foreach loops for plain tensors only: fake ones stand for plain ones here.
    for module in (_foreach_utils, sys.modules["torch.optim.optimizer"]):
        yield mock.patch.object(module, "_foreach_supported_types", [*module._foreach_supported_types, FakeTensor])
    # Managed memory is none of the allocator's: on the host, where the log does not count it.
    nothing = {"prefetch_tensor": lambda *args, **kwargs: None, "fill": lambda *args, **kwargs: None}
    yield mock.patch.multiple(bitsandbytes.functional, get_paged=_managed, **nothing)
    yield mock.patch.object(torch.cuda, "synchronize", return_value=None)
    yield mock.patch.object(torch, "tensor", _tensor(torch.tensor))
    yield mock.patch.object(torch.nn.functional, "softmax", _softmax(torch.nn.functional.softmax))
    yield cuda_kernels.cuda_attention(described.capability or (8, 0), kernel, seen)


def _managed(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> torch.Tensor:
    made = torch.empty(shape, dtype=dtype, device="cpu")
    made.is_paged, made.page_deviceid = True, 0
    return made


def _tensor(original: Any) -> Any:
    """`torch.tensor` cannot write values to a device that is not there, and nothing that is made of a known value can
    be computed there."""

    def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is None or torch.device(device).type != fake_device.DEVICE:
            made = original(data, *args, device=device, **kwargs)
            if isinstance(made, FakeTensor):
                made.constant = None
            return made
        like = original(data, *args, **kwargs)
        return torch.empty(like.shape, dtype=like.dtype, device=device)

    return tensor


def _softmax(original: Any) -> Any:
    """CUDA has one kernel for the softmax of fp16 into fp32 (not of bf16)."""

    def softmax(input: torch.Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> torch.Tensor:
        fused = dtype == torch.float32 and input.dtype == torch.float16 and input.device.type == fake_device.DEVICE
        return torch.ops.aten._softmax(input, dim, True) if fused else original(input, dim, _stacklevel, dtype)

    return softmax
