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


def cast_weights(model: torch.nn.Module, compute: str, trained: str = "checkpoint") -> None:
    """Cast the 16-bit weights of a checkpoint to the types in which the model trains, with `compute` as the precision
    of matrix products.

    With `trained` = "fp32", the weights that train become fp32: bf16 has 8 significant bits, so that an update of less
    than 0.2% of a weight is rounded away. In fp16 no weight trains: its gradients vanish without a scale, and PyTorch
    has no kernel that unscales gradients in bf16.

    Frozen weights keep the checkpoint's type as far as PyTorch can compute with it: under fp16, bf16 weights become
    fp16; under fp32, fp16 weights become fp32, and so do bf16 weights where others train in fp32, since nothing brings
    both to one type. The frozen vector of a norm gets the type of its other vector, which trains.
    """
    import torch

    half = [p for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)]
    all_fp32 = trained == "fp32" or compute == "fp16"
    to_fp32 = {p for p in half if p.requires_grad and (all_fp32 or p.dtype == torch.float16)}
    mixed = bool(to_fp32) and compute == "fp32"
    for module in model.modules():
        own = set(module.parameters(recurse=False))
        if own & to_fp32:
            to_fp32 |= {p for p in own if p.dim() == 1}
    for parameter in half:
        if parameter in to_fp32 or mixed:
            parameter.data = parameter.data.to(torch.float32)
        elif not parameter.requires_grad and (compute != "fp32" or parameter.dtype == torch.float16):
            parameter.data = parameter.data.to(dtype_of(compute))
