"""All patches that replace the machine while a run is executed on fake tensors.

They are for a process of its own, since some last as long as it. Each patch gives an answer that a fake tensor, or a
missing GPU, cannot give. The private names of torch and transformers that are patched here have no public substitute; a
prediction fails at once where one of them changes.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_post_hook

from sweep.memory.prediction import Machine
from sweep.memory.simulation import cuda_kernels, fake_device
from sweep.memory.simulation.allocation_log import BACKWARD, NO_LAYER, OPTIMIZER, EventLog


@contextmanager
def machine(described: Machine, log: EventLog, *, padded: bool, kernel: str | None, seen: set[str]) -> Iterator[str]:
    """A context in which tensors are fake and on a device like the one described. Yields the device's name.

    Args:
        log: gets the part of the step that the program is in. The caller enters it.
        padded: whether micro-batches have padding, so that models build a mask.
        kernel: the attention kernel to use; None for the one that PyTorch would choose.
        seen: collects the attention kernels that run.
    """
    cuda_kernels.register_bitsandbytes()
    cuda_kernels.register_grouped_product()
    with ExitStack() as stack:
        # transformers prefers the GPUs of this machine to the simulated device, and splits batches over them.
        stack.enter_context(mock.patch.multiple(torch.cuda, is_available=lambda: False, device_count=lambda: 0))
        if described.kind == "cuda":
            device = fake_device.register()
            for patch in _cuda(described, kernel, seen):
                stack.enter_context(patch)
        else:
            device = "cpu"
            stack.enter_context(mock.patch.multiple(torch, get_rng_state=_rng_state, set_rng_state=lambda state: None))
        stack.enter_context(_masks(padded))
        stack.enter_context(_parts(log))
        stack.callback(register_optimizer_step_post_hook(lambda optimizer, *_: _log_state(optimizer, log)).remove)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield device


@contextmanager
def _masks(padded: bool) -> Iterator[None]:
    """Decide whether models build a mask. transformers reads the mask's values to see whether it can omit it; for fake
    tensors it assumes tracing, and never omits it. Its other conditions stay: sequences longer than a sliding window
    need a mask."""
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
    """Set the part of the step in the log at the start and the end of backward."""
    backward = torch.Tensor.backward

    def logged(*args: Any, **kwargs: Any) -> None:
        log.part = BACKWARD
        backward(*args, **kwargs)
        log.enter(OPTIMIZER)

    with mock.patch.object(torch.Tensor, "backward", logged):
        yield


def _log_state(optimizer: torch.optim.Optimizer, log: EventLog) -> None:
    paged: Counter[int] = Counter()
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if getattr(value, "is_paged", False):
                layer = log.layer_of(parameter)
                paged[NO_LAYER if layer is None else layer] += value.nbytes
            elif isinstance(value, torch.Tensor):
                log.add(value, "optimizer_state")
    log.paged = paged


def _rng_state() -> torch.Tensor:
    """A fake tensor like the state of the CPU's generator, which checkpointing keeps for each layer."""
    return torch.empty(5056, dtype=torch.uint8)


def _cuda(described: Machine, kernel: str | None, seen: set[str]) -> Iterator[Any]:
    """The patches that imitate a GPU of this kind."""
    import bitsandbytes.functional
    import transformers.training_args
    from torch.utils import _foreach_utils

    yield mock.patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=fake_device.DEVICE)
    yield mock.patch.object(transformers.training_args, "is_torch_bf16_gpu_available", return_value=True)
    # torch uses its foreach loops for plain tensors only; here fake tensors represent plain ones.
    for module in (_foreach_utils, sys.modules["torch.optim.optimizer"]):
        yield mock.patch.object(module, "_foreach_supported_types", [*module._foreach_supported_types, FakeTensor])
    # The allocator does not manage paged memory. Here it is on the host, which the log does not count.
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
    """`torch.tensor` for the fake device: it gives an empty tensor, since values cannot be written to a missing device.
    Elsewhere it makes fake tensors forget their value, since a value cannot be used on the fake device."""

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
    """Softmax as on CUDA, which has one kernel for fp16 into fp32 (but none for bf16 into fp32)."""

    def softmax(input: torch.Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> torch.Tensor:
        fused = dtype == torch.float32 and input.dtype == torch.float16 and input.device.type == fake_device.DEVICE
        return torch.ops.aten._softmax(input, dim, True) if fused else original(input, dim, _stacklevel, dtype)

    return softmax
