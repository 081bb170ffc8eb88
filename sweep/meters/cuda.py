"""Memory on a GPU: the figures of PyTorch's caching allocator, and the driver's figure for the whole device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from sweep.core.artifacts import SNAPSHOT_FILE
from sweep.meters import MemoryMeter, _alive
from sweep.meters.memory_timeline import StepMemory
from sweep.runtime import nvml

log = logging.getLogger(__name__)
_HISTORY = 100_000  # allocations that a snapshot goes back
# Peaks of the allocator's statistics, under the names that they are reported by.
_PEAKS = {"allocated": "allocated_bytes", "reserved": "reserved_bytes", "requested": "requested_bytes"}


class CudaMemory(MemoryMeter):
    """`max_memory_allocated` is what tensors occupied at the peak; `max_memory_reserved` what the allocator held of the
    device; requested is allocated before the allocator rounds, and is what the CPU meter counts.

    Left out of all three: the CUDA context (some hundred MiB), which the device-level figure has, with whatever other
    processes hold; and managed memory, which is where paged optimizers keep their state. Decide by allocated: it
    repeats to the bit, while reserved depends on the allocator's history. Of several GPUs, the current one.
    """

    source = "cuda_allocator"

    def __init__(self, snapshot_folder: Path | None = None) -> None:
        super().__init__()
        self.facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
        self._peaks: dict[str, int] = {}
        self._at_oom: dict[str, float] = {}
        self._snapshot_folder = snapshot_folder
        if snapshot_folder is not None:
            torch.cuda.memory._record_memory_history(max_entries=_HISTORY)
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
            self.timeline.append(
                StepMemory(
                    number,
                    begin,
                    stats["allocated_bytes.all.current"],
                    stats["allocated_bytes.all.peak"],
                    stats["reserved_bytes.all.peak"],
                )
            )

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._take_peaks()
        yield
        torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def out_of_memory(self) -> Mapping[str, float]:
        """As it was inside the allocator when it gave up: by the time that the error is handled, much is freed."""
        return self._at_oom or super().out_of_memory()

    def _memory_ran_out(self, device: int, requested: int, total: int, free: int) -> None:
        """Called by the allocator as it gives up. An error here must not hide the one that it is about."""
        try:
            live = torch.cuda.memory_allocated(device)
            self._at_oom = {
                **_alive(self._model, self._optimizer, live),
                "memory/oom_requested_bytes": requested,
                "memory/oom_allocated_bytes": live,
                "memory/oom_device_free_bytes": free,
            }
            if self._snapshot_folder is not None:
                torch.cuda.memory._dump_snapshot(str(self._snapshot_folder / SNAPSHOT_FILE))
        except (RuntimeError, OSError, KeyError) as error:
            log.warning("what was alive when memory ran out cannot be told: %s", error)

    def _take_peaks(self) -> None:
        """Keep the peaks until now, and begin them anew."""
        stats = torch.cuda.memory_stats()
        for name, statistic in _PEAKS.items():
            self._peaks[name] = max(self._peaks.get(name, 0), stats[f"{statistic}.all.peak"])
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
        if used is not None:  # the allocator gives nothing back at the end of a phase: this is its high-water mark
            self.readings[f"memory/{phase}_device_used_bytes"] = used

    def _live_bytes(self) -> int:
        return torch.cuda.memory_allocated()
