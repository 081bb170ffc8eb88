"""Memory that other processes hold on the GPU of a run: a run that ends because of it says nothing about its setting.

No library reports it: inside a container, NVML does not know which process is which. It is what the device has in use,
without the memory that this process knows of.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweep.core.formatting import gib

# Memory of the CUDA context and of the libraries' kernels, which the allocator does not manage: 0.3 to 0.6 GiB, by the
# card's generation.
CONTEXT_BYTES = 600 * 2**20
# Less than this is not distinguished from this process's own buffers outside the allocator, such as those of NCCL.
LEAST_BYTES = 2**30


def others_bytes(total: int, free: int, own: int) -> int | None:
    """Bytes of other processes on a device with `total` bytes, of which `free` are free, and `own` are known to be of
    this process in addition to its context. None where that is less than `LEAST_BYTES`."""
    others = total - free - own - CONTEXT_BYTES
    return others if others > LEAST_BYTES else None


def out_of_memory_reason(measured: Mapping[str, float]) -> str | None:
    """Why others are the cause that a run is out of memory; None where they are not, or where nothing shows it.

    They are the cause if the request that failed would fit into what is free and what they hold. Where the request is
    not known, they are the likelier cause, and a repetition decides.
    """
    others = measured.get("memory/oom_others_bytes", measured.get("memory/preexisting_bytes"))
    if not others:
        return None
    requested, free = measured.get("memory/oom_requested_bytes"), measured.get("memory/oom_device_free_bytes", 0.0)
    if requested is not None and requested > free + others:
        return None
    fits = "" if requested is None else f"; without them, the request of {gib(requested)} would fit"
    return f"memory ran out while other processes held {gib(others)} on the GPU{fits}. Repeat the run on a free GPU"
