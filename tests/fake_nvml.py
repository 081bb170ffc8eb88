"""A stand-in for `pynvml`, NVIDIA's bindings of NVML: machines with GPUs that this machine does not have.

The functions have the names, the arguments and the errors of nvidia-ml-py; what a function does not support raises
`NVMLError_NotSupported`, as on a real GPU.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

MIB = 2**20


@dataclass
class FakeGpu:
    """A GPU. `uuid` may be None: the installation numbers it. `memory_mib` is None where NVML answers "Not Supported",
    as on a GB10. `slices` are the MIG slices of a GPU in MIG mode, by place; None is a gap."""

    name: str
    capability: tuple[int, int]
    memory_mib: int | None
    used_mib: int = 4
    reserved_mib: int = 500  # by the driver: part of `used` in the first version of the function
    uuid: str | None = None
    slices: Sequence[FakeGpu | None] | None = None
    millijoules: int | None = None
    milliwatts: int | None = None
    lost: bool = False


def h100(**values: Any) -> FakeGpu:
    return FakeGpu("NVIDIA H100 80GB HBM3", (9, 0), 81559, **values)


def rtx_4090(**values: Any) -> FakeGpu:
    return FakeGpu("NVIDIA GeForce RTX 4090", (8, 9), 24564, **values)


def gtx_1660(**values: Any) -> FakeGpu:
    return FakeGpu("NVIDIA GeForce GTX 1660", (7, 5), 6144, **values)


def t4(**values: Any) -> FakeGpu:
    return FakeGpu("Tesla T4", (7, 5), 15360, **values)


def gb10(**values: Any) -> FakeGpu:
    return FakeGpu("NVIDIA GB10", (12, 1), None, **values)


def a100_in_slices(count: int) -> FakeGpu:
    """An A100 of 40 GB in MIG mode, with slices of 5 GB, the first place of which is empty."""
    name = "NVIDIA A100-SXM4-40GB"
    slices = [FakeGpu(f"{name} MIG 1g.5gb", (8, 0), 4864, uuid=f"MIG-{n:08d}-aaaa") for n in range(1, count + 1)]
    return FakeGpu(name, (8, 0), 40536, slices=[None, *slices])


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class FakeNvml(types.ModuleType):
    """The module `pynvml` of a machine with these GPUs. With `fails`, NVML cannot be initialised. `second_version` is
    whether the driver has the second version of the memory function."""

    NVMLError, NVMLError_NotSupported, NVMLError_NotFound = NVMLError, NVMLError_NotSupported, NVMLError_NotFound
    NVMLError_GpuIsLost = NVMLError_GpuIsLost
    NVML_DEVICE_MIG_ENABLE = 1
    nvmlMemory_v2 = 0x02000028

    def __init__(self, gpus: Sequence[FakeGpu], *, fails: bool = False, second_version: bool = True):
        super().__init__("pynvml")
        self.gpus, self.fails, self.second_version = list(gpus), fails, second_version
        for number, gpu in enumerate(self.gpus):
            gpu.uuid = gpu.uuid or uuid_of(number)

    def nvmlInit(self) -> None:
        if self.fails:
            raise NVMLError("Driver/library version mismatch")

    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12040

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return _there(self.gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str | bytes) -> FakeGpu:
        text = uuid.decode() if isinstance(uuid, bytes) else uuid
        for gpu in self.gpus:
            for one in (gpu, *(one for one in gpu.slices or () if one is not None)):
                if one.uuid == text:
                    return _there(one)
        raise NVMLError_NotFound("Not Found")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return str(_there(gpu).uuid)

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return _there(gpu).name

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> list[int]:
        return list(_there(gpu).capability)

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if gpu.capability < (8, 0) or "GeForce" in gpu.name:
            raise NVMLError_NotSupported("Not Supported")
        return [int(gpu.slices is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        slices = list(gpu.slices or ())
        if index >= len(slices) or slices[index] is None:
            raise NVMLError_NotFound("Not Found")
        return slices[index]

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        if _there(gpu).memory_mib is None or (version and not self.second_version):
            raise NVMLError_NotSupported("Not Supported")
        used = gpu.used_mib if version else gpu.used_mib + gpu.reserved_mib
        return SimpleNamespace(total=gpu.memory_mib * MIB, used=used * MIB)

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        if _there(gpu).millijoules is None:
            raise NVMLError_NotSupported("Not Supported")
        return gpu.millijoules

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        if _there(gpu).milliwatts is None:
            raise NVMLError_NotSupported("Not Supported")
        return gpu.milliwatts


def uuid_of(number: int) -> str:
    return f"GPU-{number:08d}-1111-2222-3333-444444444444"


def _there(gpu: FakeGpu) -> FakeGpu:
    if gpu.lost:
        raise NVMLError_GpuIsLost("GPU is lost")
    return gpu


def install(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu, visible: str | None = None, **options: Any) -> FakeNvml:
    """Put this process on a machine with these GPUs and a PyTorch that is built for them. `visible` is
    CUDA_VISIBLE_DEVICES."""
    from sweep.runtime import gpus as machine
    from sweep.runtime import nvml

    fake = FakeNvml(gpus, **options)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(nvml, "_library", nvml._initialised)  # without its cache
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(machine, "DEVICE_FILES", ())
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return fake
