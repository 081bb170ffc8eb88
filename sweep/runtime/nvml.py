"""NVIDIA's management library (NVML). It finds the GPU that PyTorch uses by its UUID.

PyTorch numbers the GPUs of CUDA_VISIBLE_DEVICES, and NVML numbers all GPUs. Their orders may differ: an index of one
has no meaning for the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from sweep.runtime import visible_devices

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """NVML is not available, or does not know the GPU. The message is the reason."""


def handles(uuids: tuple[str, ...]) -> list[Any]:
    """NVML's handles of these GPUs, in their order.

    Raises:
        Unavailable: the library, the driver or one of the GPUs is missing.
    """
    pynvml = _library()
    try:
        return [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML does not know {', '.join(uuids)}: {error}") from error


class Memory(NamedTuple):
    """Memory of a GPU: all of it, and what processes use."""

    total_bytes: int
    used_bytes: int


def memory(library: Any, handle: Any) -> Memory | None:
    """The memory of a GPU; None where NVML does not report it, as for a GPU that shares the host's memory.

    The second version of the function does not count as used what the driver reserves for itself, which is up to 1 GB.
    Old drivers, and Windows' subsystem for Linux, have the first version only.
    """
    for version in (library.nvmlMemory_v2, None):
        try:
            found = library.nvmlDeviceGetMemoryInfo(handle, version)
        except library.NVMLError:
            continue
        return Memory(int(found.total), int(found.used))
    return None


def leased_uuids() -> tuple[str, ...]:
    """UUIDs of the GPUs that this process may use, in PyTorch's order and as NVML writes them; () without a GPU.

    A lease names its GPUs by UUID. PyTorch gives UUIDs without their prefix, and for a MIG slice it may give that of
    the whole GPU, whose memory and energy are not the slice's: with "MIG-" before it, NVML does not know it.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    names = visible_devices.named()
    if names and not any(name.isdigit() for name in names):
        return tuple(names)
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return tuple(f"{'MIG' if ' MIG ' in one.name else 'GPU'}-{one.uuid}" for one in found)


class Driver(NamedTuple):
    """The driver's version, and the newest CUDA that it runs, as "12.4"."""

    version: str
    cuda: str


def driver() -> Driver | None:
    """The installed driver; None where NVML does not report it."""
    with opened() as library:
        if library is None:
            return None
        try:
            number = int(library.nvmlSystemGetCudaDriverVersion())  # 12040
            return Driver(str(library.nvmlSystemGetDriverVersion()), f"{number // 1000}.{number % 1000 // 10}")
        except library.NVMLError:
            return None


def used_bytes(index: int) -> int | None:
    """Bytes in use on PyTorch's GPU `index`, by all processes with their contexts; None where NVML reports nothing."""
    try:
        (handle,) = handles((leased_uuids()[index],))
    except Unavailable as error:
        _warn_once(str(error))
        return None
    found = memory(_library(), handle)
    return found.used_bytes if found else None


def ask(function: str, handle: Any) -> Any:
    """The result of one of NVML's functions for a GPU.

    Raises:
        Unavailable: the GPU does not support the function, or is gone.
    """
    pynvml = _library()
    try:
        return getattr(pynvml, function)(handle)
    except pynvml.NVMLError as error:
        raise Unavailable(f"{function}: {error}") from error


@contextmanager
def opened() -> Iterator[Any]:
    """The bindings `pynvml`, initialised inside the block; None where NVML is not available."""
    try:
        pynvml = _initialised()
    except Unavailable:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _initialised() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise Unavailable(f"nvidia-ml-py is not installed: {error}") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML cannot be used: {error}") from error
    return pynvml


_library = cache(_initialised)  # the bindings, initialised until the process ends
_warn_once = cache(log.warning)
