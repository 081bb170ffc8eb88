"""The imports of the fork server, which must not call the CUDA driver."""

from __future__ import annotations

import fake_nvml
import pytest
import torch
from fake_nvml import a100_in_slices, h100

from sweep.launch import preload


@pytest.fixture(autouse=True)
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch whose every way to the driver is a failure."""

    def touched(*arguments: object) -> None:
        pytest.fail("the CUDA driver was called")

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", touched, raising=False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


@pytest.mark.parametrize(
    ("machine", "options", "count", "capabilities"),
    [
        ([], {"fails": True}, 0, []),  # no driver
        ([h100()], {}, 1, [(9, 0)]),
        ([h100() for _ in range(8)], {}, 8, [(9, 0)] * 8),
        ([h100() for _ in range(8)], {"visible": ""}, 0, []),
        ([a100_in_slices(2)], {"visible": "MIG-00000001-aaaa"}, 1, [(8, 0)]),
        ([h100(lost=True)], {}, 1, [(8, 0)]),
    ],
)
def test_libraries_count_gpus_without_the_driver(
    machine: list, options: dict, count: int, capabilities: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    """bitsandbytes needs both answers: without a capability it takes its library for the CPU."""
    from bitsandbytes import cuda_specs

    fake_nvml.install(monkeypatch, *machine, **options)
    before = torch.cuda.device_count, torch.cuda.get_device_capability
    with preload._without_the_driver():
        assert torch.cuda.device_count() == count
        assert torch.cuda.is_available() == (count > 0)
        assert cuda_specs.get_compute_capabilities() == capabilities
    assert (torch.cuda.device_count, torch.cuda.get_device_capability) == before
