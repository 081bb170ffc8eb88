"""Memory on a GPU: statistics of PyTorch's caching allocator, and the driver's figure for the whole device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from sweep.core.artifacts import SNAPSHOT_FILE
from sweep.meters import MemoryMeter, live_figures
from sweep.meters.memory_timeline import StepMemory
from sweep.runtime import nvml

log = logging.getLogger(__name__)
_HISTORY = 100_000  # allocations in a snapshot
_PEAKS = ("allocated", "reserved", "requested")  # the allocator's statistics that are reported


class CudaMemory(MemoryMeter):
    """Peaks of three figures. Allocated is the memory of tensors; reserved is the memory that the allocator holds on
    the device; requested is allocated without the allocator's rounding, the quantity of the CPU meter.

    All three leave out the CUDA context (some hundred MiB) and managed memory, where paged optimizers keep their state.
    The device-level figure contains the context, and the memory of other processes. Decide by allocated: its repeats
    are bit-identical, while reserved depends on the allocator's history. Of several GPUs, the current one is measured.
    """

    source = "cuda_allocator"

    def __init__(self, snapshot_folder: Path | None = None) -> None:
        super().__init__()
        self.facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        self._peaks: dict[str, int] = {}
        self._at_oom: dict[str, float] = {}
        self._snapshot_folder = snapshot_folder
        if snapshot_folder is not None:
            torch.cuda.memory._record_memory_history(max_entries=_HISTORY)  # PyTorch documents it under this name
        # The observer sees live memory before the error is raised. If PyTorch drops it, `out_of_memory` reads later.
        observe = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)
        if observe is not None:
            observe(self._memory_ran_out)

    @contextmanager
    def step(self, number: int, wanted: bool = True) -> Iterator[None]:
        self._take_peaks()
        begin = torch.cuda.memory_allocated()
        try:
            yield
        finally:
            stats = torch.cuda.memory_stats()
            names = ("allocated_bytes.all.current", "allocated_bytes.all.peak", "reserved_bytes.all.peak")
            self.timeline.append(StepMemory(number, begin, *(stats[name] for name in names)))

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._take_peaks()
        yield
        torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def out_of_memory(self) -> Mapping[str, float]:
        """The state inside the allocator at the failed allocation. Much is freed before the error is handled."""
        return self._at_oom or super().out_of_memory()

    def _memory_ran_out(self, device: int, requested: int, total: int, free: int) -> None:
        """Called by the allocator when an allocation fails. An error here must not hide the out-of-memory error."""
        try:
            live = torch.cuda.memory_allocated(device)
            self._at_oom = {
                **live_figures(self._model, self._optimizer, live),
                "memory/oom_requested_bytes": requested,
                "memory/oom_allocated_bytes": live,
                "memory/oom_device_free_bytes": free,
            }
            if self._snapshot_folder is not None:
                torch.cuda.memory._dump_snapshot(str(self._snapshot_folder / SNAPSHOT_FILE))
        except (RuntimeError, OSError, KeyError) as error:
            log.warning("the live memory at out of memory could not be read: %s", error)

    def _take_peaks(self) -> None:
        """Keep the peaks until now, and reset them."""
        stats = torch.cuda.memory_stats()
        for name in _PEAKS:
            self._peaks[name] = max(self._peaks.get(name, 0), stats[f"{name}_bytes.all.peak"])
        torch.cuda.reset_peak_memory_stats()

    def _begin(self) -> None:
        self.synchronize()
        self._peaks = {}
        torch.cuda.reset_peak_memory_stats()

    def _end(self, phase: str) -> None:
        self._take_peaks()
        for name, peak in self._peaks.items():
            self.readings[f"memory/{phase}_max_{name}_bytes"] = peak
        stats = torch.cuda.memory_stats()
        self.readings[f"memory/{phase}_end_allocated_bytes"] = stats["allocated_bytes.all.current"]
        self.readings["memory/alloc_retries"] = stats["num_alloc_retries"]
        self.readings["memory/capacity_bytes"] = torch.cuda.mem_get_info()[1]
        used = nvml.used_bytes(torch.cuda.current_device())
        if used is not None:  # the allocator keeps its memory at the end of a phase: this is its highest value
            self.readings[f"memory/{phase}_device_used_bytes"] = used

    def _live_bytes(self) -> int:
        return torch.cuda.memory_allocated()
