"""A stand-in for PyTorch's CUDA allocator: its statistics, its cache, and its observers, by counting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

GIB = 2**30
CONTEXT = 500 * 2**20


class Allocator:
    """One GPU of `capacity` bytes. Freed memory stays in the cache until `empty_cache`. `others` is what other
    processes hold. With `observed=False` it refuses an observer, as cudaMallocAsync does."""

    def __init__(self, capacity: int = 80 * GIB, others: int = 0, observed: bool = True):
        self.capacity, self.others, self.observed = capacity, others, observed
        self.allocated = self.reserved = 0
        self.peaks = {"allocated": 0, "reserved": 0}
        self.observers: list[Callable[[int, int, int, int], None]] = []
        self.history: dict[str, object] = {}

    def allocate(self, size: int) -> None:
        needed = max(0, self.allocated + size - self.reserved)
        if needed > self.free_bytes:
            for observer in self.observers:
                observer(0, size, self.capacity, self.free_bytes)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / GIB:.2f} GiB.")
        self.allocated += size
        self.reserved += needed
        self._note_peaks()

    def free(self, size: int) -> None:
        self.allocated -= size

    @property
    def free_bytes(self) -> int:
        return self.capacity - self.reserved - CONTEXT - self.others

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def reset(self) -> None:
        self.peaks = {"allocated": 0, "reserved": 0}
        self._note_peaks()

    def stats(self) -> dict[str, int]:
        now = {"allocated": self.allocated, "reserved": self.reserved}
        found = {f"{name}_bytes.all.current": value for name, value in now.items()}
        found |= {f"{name}_bytes.all.peak": value for name, value in self.peaks.items()}
        requested = self.peaks["allocated"] if self.observed else 0
        return found | {"requested_bytes.all.peak": requested, "num_alloc_retries": 0}

    def attach(self, observer: Callable[[int, int, int, int], None]) -> None:
        if not self.observed:
            raise RuntimeError("cudaMallocAsync does not yet support attachOutOfMemoryObserver.\nException raised from")
        self.observers.append(observer)

    def _note_peaks(self) -> None:
        self.peaks["allocated"] = max(self.peaks["allocated"], self.allocated)
        self.peaks["reserved"] = max(self.peaks["reserved"], self.reserved)


def install(monkeypatch: pytest.MonkeyPatch, allocator: Allocator) -> Allocator:
    """Make PyTorch's functions for GPU memory read this allocator."""
    from sweep.runtime import nvml

    functions = {
        "memory_allocated": lambda device=None: allocator.allocated,
        "memory_reserved": lambda device=None: allocator.reserved,
        "memory_stats": allocator.stats,
        "reset_peak_memory_stats": allocator.reset,
        "empty_cache": allocator.empty_cache,
        "synchronize": lambda: None,
        "mem_get_info": lambda: (allocator.free_bytes, allocator.capacity),
        "get_device_capability": lambda: (9, 0),
        "current_device": lambda: 0,
    }
    for name, function in functions.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(torch._C, "_cuda_attach_out_of_memory_observer", allocator.attach, raising=False)
    monkeypatch.setattr(
        torch.cuda.memory, "_record_memory_history", lambda **options: allocator.history.update(options)
    )
    monkeypatch.setattr(nvml, "used_bytes", lambda index: None)
    return allocator
