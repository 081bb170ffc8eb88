"""The errors of all libraries that mean out of memory."""

from __future__ import annotations

import torch

_SIGNS = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors of PyTorch, Python, cuBLAS, cuDNN and the CPU allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
