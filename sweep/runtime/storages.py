"""Which storage a tensor shares with others."""

from __future__ import annotations

import torch


def storage_address(tensor: torch.Tensor) -> int:
    """The address of the tensor's C++ storage: equal for views of one storage, and valid as long as that lives.

    PyTorch's public `data_ptr` is 0 for fake tensors and for empty ones, so this private name has no substitute.
    """
    return torch._C._storage_address(tensor)
