"""Number formats by name, and which of them the hardware supports."""

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
    """The meaning of "auto" on this device: bf16 on GPUs that compute it, fp16 on older GPUs, fp32 on the CPU.

    On the CPU it is always fp32, also with AVX512-BF16: the result of a study must not depend on which of two similar
    machines ran it.
    """
    import torch

    if precision != "auto":
        return precision
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def autocast(precision: str, device_type: str) -> AbstractContextManager[None]:
    """Autocast for evaluation to the precision of training: the same for every variant."""
    import torch

    resolved = resolve(precision, device_type)
    return nullcontext() if resolved == "fp32" else torch.autocast(device_type, dtype=dtype_of(resolved))


def cast_fp16_weights(model: torch.nn.Module, compute: str) -> None:
    """Cast the fp16 weights of a checkpoint: trainable weights to fp32, since loss scaling needs it, and frozen weights
    to the precision of computation `compute`."""
    import torch

    for parameter in model.parameters():
        if parameter.dtype == torch.float16:
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else dtype_of(compute))
