"""NVIDIA's management library: the same GPU that PyTorch sees, found by its UUID.

PyTorch numbers the GPUs that CUDA_VISIBLE_DEVICES leaves, NVML all that there are, and the two may even be ordered
differently: an index of one says nothing to the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """NVML is not there, or does not know the GPU. The message is the reason, in words."""


def handles(uuids: tuple[str, ...]) -> list[Any]:
    """NVML's handles of these GPUs, in their order.

    Raises:
        Unavailable: without the library, the driver, or one of the GPUs.
    """
    pynvml = _library()
    try:
        return [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML does not know {', '.join(uuids)}: {error}") from error


def leased_uuids() -> tuple[str, ...]:
    """UUIDs of the GPUs that this process may use, as NVML writes them; () where there is none."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = (str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count()))
    return tuple(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}" for uuid in found)


def used_bytes(index: int) -> int | None:
    """Memory in use on PyTorch's GPU `index`, by all processes, contexts included; None where NVML cannot tell."""
    try:
        (handle,) = handles((leased_uuids()[index],))
        return int(ask("nvmlDeviceGetMemoryInfo", handle).used)
    except Unavailable as error:
        _told_once(str(error))
        return None


def ask(function: str, handle: Any) -> Any:
    """What one of NVML's functions says about a GPU.

    Raises:
        Unavailable: where it says nothing: not supported by the GPU, or the GPU is gone.
    """
    pynvml = _library()
    try:
        return getattr(pynvml, function)(handle)
    except pynvml.NVMLError as error:
        raise Unavailable(f"{function}: {error}") from error


@contextmanager
def opened() -> Iterator[Any]:
    """The bindings `pynvml`, initialised for as long as the block lasts; None where NVML cannot be used."""
    try:
        pynvml = _initialised()
    except Unavailable:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@cache
def _library() -> Any:
    """The bindings, initialised for as long as this process lasts."""
    return _initialised()


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


@cache
def _told_once(message: str) -> None:
    log.warning(message)
