"""Storages are distinguished by a private name of PyTorch; this test fails when that name changes."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sweep.runtime.storages import storage_address


@pytest.mark.parametrize("fake", [False, True])
def test_views_share_an_address_and_other_tensors_do_not(fake: bool):
    assert hasattr(torch._C, "_storage_address"), "PyTorch renamed it: UntypedStorage._cdata is the same number"
    with FakeTensorMode() if fake else torch.device("meta"):
        whole, other = torch.empty(8), torch.empty(8)
        assert storage_address(whole) == storage_address(whole[2:]) != storage_address(other)
