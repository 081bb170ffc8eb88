"""Whether PyTorch can use the GPU, in words; and the software on which its figures depend."""

from __future__ import annotations

from collections.abc import Callable

import fake_nvml
import pytest
import torch
from fake_nvml import h100

from sweep.core.errors import UserError
from sweep.runtime import cuda_device, gpus, nvml

CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # torch.cuda.get_arch_list() of the wheel


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        ((6, 1), False),  # GTX 10
        ((7, 0), False),  # V100
        ((7, 5), True),  # T4
        ((8, 9), True),  # RTX 40: runs code for 8.6
        ((9, 0), True),
        ((10, 3), True),
        ((12, 1), True),  # GB10
        ((13, 0), False),
    ],
)
def test_code_for_a_gpu_is_code_of_its_generation(capability: tuple[int, int], runs: bool):
    """NVIDIA: binaries run on GPUs of the same major and the same or a later minor number."""
    assert (cuda_device.code_fault("some GPU", capability, CU130) is None) == runs


def test_a_gpu_without_code_is_told_which_wheel_has_it():
    fault = cuda_device.code_fault("Tesla V100-SXM2-16GB", (7, 0), CU130)
    assert "has no code for Tesla V100-SXM2-16GB, compute capability 7.0" in fault
    version = torch.__version__.partition("+")[0]
    assert f"torch {version}+cu126" in fault
    assert "CUDA_VISIBLE_DEVICES=''" in fault
    assert "no build of this version has" in cuda_device.code_fault("Tesla K80", (3, 7), CU130)


def test_an_old_driver_is_told_the_update_and_the_wheel():
    fault = cuda_device.driver_fault("13.0", nvml.Driver("550.54.15", "12.4"))
    assert "The NVIDIA driver 550.54.15, for CUDA 12.4, is too old" in fault
    assert "built for CUDA 13.0: update the driver, or install" in fault
    assert "+cu126" in fault
    assert cuda_device.driver_fault("13.0", nvml.Driver("470.1", "11.4")).endswith("CUDA 13.0: update the driver")
    assert cuda_device.driver_fault("13.0", None).startswith("The NVIDIA driver is too old for PyTorch")


def raises(message: str) -> Callable[..., None]:
    def call(*arguments: object, **options: object) -> None:
        raise RuntimeError(message)

    return call


def test_the_faults_come_as_one_sentence_before_the_study(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, h100())
    old = "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver"
    monkeypatch.setattr(torch.cuda, "init", raises(old))
    with pytest.raises(UserError, match=r"The NVIDIA driver 550\.54\.15, for CUDA 12\.4, is too old"):
        cuda_device.require_usable()
    monkeypatch.setattr(torch.cuda, "init", raises("Found no NVIDIA driver on your system. Please check"))
    with pytest.raises(UserError, match="PyTorch cannot use the GPU: Found no NVIDIA driver"):
        cuda_device.require_usable()
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: CU130)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    with pytest.raises(UserError, match="has no code for NVIDIA H100"):
        cuda_device.require_usable()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    busy = "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be"
    monkeypatch.setattr(torch, "zeros", raises(busy))
    with pytest.raises(
        UserError, match=r"cannot use NVIDIA H100: CUDA error.*unavailable\. nvidia-smi shows"
    ) as caught:
        cuda_device.require_usable()
    assert "\n" not in str(caught.value)


def test_settings_that_change_figures_are_named(monkeypatch: pytest.MonkeyPatch):
    for name in cuda_device.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert cuda_device.software().keys() == {"version.cuda", "version.cudnn"}
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "roundup_power2_divisions:4")
    assert cuda_device.software()["environment.PYTORCH_CUDA_ALLOC_CONF"] == "roundup_power2_divisions:4"


def test_a_run_on_another_device_than_prepared_is_refused():
    cuda_device.require_leased("NVIDIA H100", "NVIDIA H100")
    cuda_device.require_leased(None, "AMD EPYC, 8 threads")
    with pytest.raises(UserError, match="prepared for NVIDIA H100, and its process has AMD EPYC, 8 threads"):
        cuda_device.require_leased("NVIDIA H100", "AMD EPYC, 8 threads")


def test_the_gpus_that_are_measured_are_those_of_the_lease(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for names in (("GPU-aa",), ("MIG-bb",), ("GPU-aa", "GPU-bb")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(names))
        assert nvml.leased_uuids() == names


@pytest.mark.parametrize(("name", "uuid"), [("NVIDIA A100", "GPU-aa"), ("NVIDIA A100 MIG 1g.5gb", "MIG-aa")])
def test_without_a_lease_pytorch_s_uuid_gets_its_prefix(name: str, uuid: str, monkeypatch: pytest.MonkeyPatch):
    """A slice must not be measured as its whole GPU."""

    class Properties:
        pass

    found = Properties()
    found.name, found.uuid = name, "aa"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    assert nvml.leased_uuids() == (uuid,)


def test_the_build_of_pytorch_is_read_without_importing_it():
    assert gpus.torch_has_cuda() == (torch.version.cuda is not None)
