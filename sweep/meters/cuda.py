"""Memory on a GPU: statistics of PyTorch's caching allocator, and the driver's figure for the whole device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from sweep.core.artifacts import SNAPSHOT_FILE
from sweep.core.errors import first_line
from sweep.core.measurements import PAGED_BYTES
from sweep.meters import MemoryMeter, live_figures, live_memory
from sweep.meters.memory_timeline import StepMemory
from sweep.meters.other_processes import others_bytes
from sweep.runtime import nvml

log = logging.getLogger(__name__)
_HISTORY = 100_000  # allocations in a snapshot
_PEAKS = ("allocated", "reserved", "requested")  # the allocator's statistics that are reported


class CudaMemory(MemoryMeter):
    """Peaks of three figures. Allocated is the memory of tensors; reserved is the memory that the allocator holds on
    the device; requested is allocated without the allocator's rounding, the quantity of the CPU meter.

    All three leave out the CUDA context (some hundred MiB) and managed memory, where paged optimizers keep their state:
    that is a figure of its own. The device-level figure contains the context, and the memory of other processes. Decide
    by allocated and paged memory: repeats are bit-identical, while reserved depends on the allocator's history. Of
    several GPUs, the current one is measured.
    """

    source = "cuda_allocator"

    def __init__(self, snapshot_folder: Path | None = None) -> None:
        super().__init__()
        self._peaks: dict[str, int] = {}
        self._at_oom: dict[str, float] = {}
        self._paged_bytes = 0
        self._snapshot_folder = snapshot_folder
        self._started = False

    def _start(self) -> None:
        """Observe the allocator from now on. The observer sees live memory before the error is raised."""
        self._started = True
        self.facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        name = "_cuda_attach_out_of_memory_observer"  # if PyTorch drops it, memory is read after the error
        observe = getattr(torch._C, name, None)
        try:
            if observe is not None:
                observe(self._memory_ran_out)
            if self._snapshot_folder is not None:  # Python's stacks only: C++ names are found slowly, during the error
                torch.cuda.memory._record_memory_history(max_entries=_HISTORY, stacks="python")
        except RuntimeError as error:  # other allocators, such as backend:cudaMallocAsync, refuse it
            self.facts["memory_at_oom"] = f"read after the error: the allocator has no observer ({first_line(error)})"

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
        torch.cuda.empty_cache()  # else reserved memory would contain the cache that this work has left
        torch.cuda.reset_peak_memory_stats()

    def paged_bytes(self) -> int:
        """Also after training: bitsandbytes does not free the memory."""
        self._paged_bytes = max(self._paged_bytes, live_memory.paged_bytes(self._optimizer))
        return self._paged_bytes

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def out_of_memory(self) -> Mapping[str, float]:
        """The state inside the allocator at the failed allocation. Much is freed before the error is handled."""
        if self._at_oom:
            return self._at_oom
        try:
            free, total = torch.cuda.mem_get_info()
        except RuntimeError:  # the context itself found no memory
            return super().out_of_memory()
        return {**super().out_of_memory(), **self._device_figures(free, total, torch.cuda.memory_reserved())}

    def _device_figures(self, free: int, total: int, reserved: int) -> dict[str, float]:
        others = others_bytes(total, free, reserved + self.paged_bytes())
        shared = {} if others is None else {"memory/oom_others_bytes": others}
        return {"memory/oom_device_free_bytes": free, **shared}

    def _memory_ran_out(self, device: int, requested: int, total: int, free: int) -> None:
        """Called by the allocator when an allocation fails. An error here must not hide the out-of-memory error."""
        self.ran_out = True
        try:
            live = torch.cuda.memory_allocated(device)
            self._at_oom = {
                **live_figures(self._model, self._optimizer, live),
                "memory/oom_requested_bytes": requested,
                "memory/oom_allocated_bytes": live,
                **self._device_figures(free, total, torch.cuda.memory_reserved(device)),
            }
            if self._snapshot_folder is not None:
                torch.cuda.memory._dump_snapshot(str(self._snapshot_folder / SNAPSHOT_FILE))
        except (RuntimeError, OSError, KeyError) as error:
            log.warning("the live memory at out of memory could not be read: %s", error)

    def _take_peaks(self) -> None:
        """Keep the peaks until now, and reset them."""
        stats = torch.cuda.memory_stats()
        for name in _PEAKS:
            peak = stats[f"{name}_bytes.all.peak"]
            if peak or name != "requested":  # cudaMallocAsync does not count requests, and reports 0
                self._peaks[name] = max(self._peaks.get(name, 0), peak)
        torch.cuda.reset_peak_memory_stats()

    def _begin(self) -> None:
        if not self._started:
            self._start()
        self.synchronize()
        torch.cuda.empty_cache()  # else reserved memory would contain the cache of the previous phase
        self._peaks, self._at_oom = {}, {}
        torch.cuda.reset_peak_memory_stats()

    def _end(self, phase: str) -> None:
        self._take_peaks()
        for name, peak in self._peaks.items():
            self.readings[f"memory/{phase}_max_{name}_bytes"] = peak
        stats = torch.cuda.memory_stats()
        self.readings[f"memory/{phase}_end_allocated_bytes"] = stats["allocated_bytes.all.current"]
        self.readings["memory/alloc_retries"] = stats["num_alloc_retries"]
        if phase == "train":
            self.readings[PAGED_BYTES] = self.paged_bytes()
        free, total = torch.cuda.mem_get_info()
        self.readings["memory/capacity_bytes"] = total
        others = others_bytes(total, free, stats["reserved_bytes.all.current"] + self.paged_bytes())
        if others is not None:
            self.readings[f"memory/{phase}_others_bytes"] = others
        used = nvml.used_bytes(torch.cuda.current_device())
        if used is not None:
            self.readings[f"memory/{phase}_device_used_bytes"] = used

    def _live_bytes(self) -> int:
        return torch.cuda.memory_allocated()
