"""The key of a tensor's storage: equal for all views of the storage, and for real and fake tensors alike.

PyTorch has no public key that serves fake tensors (`data_ptr` is 0 for all of them). The two private names that do are
in this file only.
"""

from __future__ import annotations

import torch


def storage_key(storage: torch.UntypedStorage) -> int:
    """The address of the C++ storage."""
    return storage._cdata


# `storage_key(tensor.untyped_storage())` in one call: the memory meter calls it for every operator.
tensor_storage_key = torch._C._storage_address
