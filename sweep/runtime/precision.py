"""Number formats by name, and what the hardware can do with them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of "fp32", "bf16" or "fp16"."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def resolve(precision: str, device_type: str) -> str:
    """What "auto" means on this device: bf16 where a GPU computes it, fp16 on older ones, fp32 on the CPU.

    On the CPU it is always fp32, also where AVX512-BF16 is there: the result of a study should not depend on which of
    two similar machines ran it.
    """
    import torch

    if precision != "auto":
        return precision
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def autocast(precision: str, device_type: str) -> AbstractContextManager[None]:
    """The precision that training computes in, for evaluation: the same for every variant."""
    import torch

    resolved = resolve(precision, device_type)
    return nullcontext() if resolved == "fp32" else torch.autocast(device_type, dtype=dtype_of(resolved))


def cast_fp16_weights(model: torch.nn.Module, compute: str) -> None:
    """Hold the weights of an fp16 checkpoint in what they can train in: those that train in fp32, as loss scaling
    needs; the frozen ones in what is computed in, which they would be cast to each time, or not multiply with."""
    import torch

    for parameter in model.parameters():
        if parameter.dtype == torch.float16:
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else dtype_of(compute))
