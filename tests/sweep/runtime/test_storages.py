"""The private names of PyTorch that identify a storage. If PyTorch renames them, these tests say which to replace."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sweep.runtime.storages import storage_key, tensor_storage_key


@pytest.mark.parametrize("fake", [False, True])
def test_views_share_a_key_and_storages_differ(fake: bool):
    assert hasattr(torch.UntypedStorage, "_cdata"), "sweep/runtime/storages.py needs another key of a storage"
    with FakeTensorMode() if fake else torch.no_grad():
        one, other = torch.zeros(4), torch.zeros(4)
        keys = [storage_key(tensor.untyped_storage()) for tensor in (one, one[1:], one.view(2, 2), other)]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_the_key_of_a_tensor_is_the_key_of_its_storage():
    assert hasattr(torch._C, "_storage_address"), "sweep/runtime/storages.py: compute the key from untyped_storage()"
    tensor = torch.zeros(4)[1:]
    assert tensor_storage_key(tensor) == storage_key(tensor.untyped_storage())
