"""NVIDIA's management library (NVML). It finds the GPU that PyTorch uses by its UUID.

PyTorch numbers the GPUs of CUDA_VISIBLE_DEVICES, and NVML numbers all GPUs. Their orders may differ: an index of one
has no meaning for the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

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


def leased_uuids() -> tuple[str, ...]:
    """UUIDs of the GPUs that this process may use, as NVML writes them; () without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = (str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count()))
    return tuple(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}" for uuid in found)


def used_bytes(index: int) -> int | None:
    """Bytes in use on PyTorch's GPU `index`, by all processes with their contexts; None where NVML reports nothing."""
    try:
        (handle,) = handles((leased_uuids()[index],))
        return int(ask("nvmlDeviceGetMemoryInfo", handle).used)
    except Unavailable as error:
        _warn_once(str(error))
        return None


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
