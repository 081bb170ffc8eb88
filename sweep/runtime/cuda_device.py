"""The GPU of this process, as CUDA sees it: whether PyTorch can use it, and the software and settings that change its
figures. These functions create a CUDA context."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import torch

from sweep.core.errors import UserError, first_line
from sweep.runtime import nvml

# They change memory, speed or numbers on a GPU.
SETTINGS = (
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
_ON_CPU = "run on the CPU: CUDA_VISIBLE_DEVICES='' before the command"


def require_usable() -> None:
    """Raises UserError with the remedy where PyTorch cannot use the GPU: the driver is older than this PyTorch needs,
    this PyTorch has no code for the GPU, or the GPU refuses a context."""
    try:
        torch.cuda.init()
        capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
    except (RuntimeError, AssertionError) as error:
        if "too old" in str(error):
            raise UserError(driver_fault(torch.version.cuda, nvml.driver())) from error
        raise UserError(_unusable("the GPU", error)) from error
    fault = code_fault(name, capability, torch.cuda.get_arch_list())
    if fault is not None:
        raise UserError(fault)
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError as error:
        raise UserError(_unusable(name, error)) from error


def _unusable(name: str, error: Exception) -> str:
    return (
        f"PyTorch cannot use {name}: {first_line(error)}. nvidia-smi shows whether it is lost, or held by one process "
        f"alone (compute mode); name another with hydra.launcher.devices, or {_ON_CPU}"
    )


def driver_fault(built_for: str | None, driver: nvml.Driver | None) -> str:
    """The message for a driver that is older than this PyTorch needs. A driver runs everything that was built for its
    own major version of CUDA."""
    has, suitable = "", []
    if driver is not None:
        has = f" {driver.version}, for CUDA {driver.cuda},"
        suitable = [release for release in _releases() if release.split(".")[0] == driver.cuda.split(".")[0]]
    install = f", or install a PyTorch that suits it: {_build(suitable[0])}" if suitable else ""
    return (
        f"The NVIDIA driver{has} is too old for PyTorch {torch.__version__}, which is built for CUDA {built_for}: "
        f"update the driver{install}"
    )


def code_fault(name: str, capability: tuple[int, int], archs: Sequence[str]) -> str | None:
    """The message for a GPU that a PyTorch with code for these architectures ("sm_90") cannot use; None if it can."""
    device = 10 * capability[0] + capability[1]
    numbers = [int("".join(filter(str.isdigit, arch))) for arch in archs]
    if not archs or _runs_on(device, numbers):
        return None
    others = [release for release, codes in _releases().items() if _runs_on(device, codes)]
    install = f"install one that has: {_build(others[-1])}, or " if others else "no build of this version has; "
    return (
        f"PyTorch {torch.__version__} has no code for {name}, compute capability {capability[0]}.{capability[1]} (it "
        f"has {', '.join(archs)}): {install}{_ON_CPU}"
    )


def _runs_on(device: int, codes: Sequence[int] | set[int]) -> bool:
    known = torch.cuda.DEVICE_REQUIREMENT
    return any(device in known[code] for code in codes if code in known)


def _releases() -> dict[str, set[int]]:
    """CUDA version → architectures of the wheels of this PyTorch, the oldest first."""
    host = "aarch64" if platform.machine() == "aarch64" else "x86_64"
    return {cuda: by_host.get(host, set()) for cuda, by_host in torch.cuda.PYTORCH_RELEASES_CODE_CC.items()}


def _build(cuda: str) -> str:
    version = torch.__version__.partition("+")[0]
    return f"torch {version}+cu{cuda.replace('.', '')} (pytorch.org/get-started/locally has its pip command)"


def software() -> dict[str, str]:
    """Versions and environment variables that change the figures of a GPU. cuDNN has attention kernels; wheels for
    several CUDA versions have the same version of PyTorch."""
    cudnn = torch.backends.cudnn.version()
    found = {"version.cuda": torch.version.cuda or "none", "version.cudnn": str(cudnn) if cudnn else "none"}
    return found | {f"environment.{name}": os.environ[name] for name in SETTINGS if os.environ.get(name)}


def require_leased(leased: str | None, device: str) -> None:
    """Raises UserError where a run has not the GPU that it was prepared for: another kind of GPU, or none, since the
    GPU was lost. Its figures would be recorded under a false name."""
    if leased is None or leased == device:
        return
    raise UserError(
        f"this run was prepared for {leased}, and its process has {device}: the GPU was lost (nvidia-smi shows it), or "
        "another command changed CUDA_VISIBLE_DEVICES. Give the same command again once the GPU is there"
    )
