"""Memory on a GPU: the figures of PyTorch's caching allocator."""

from __future__ import annotations

import torch

from sweep.meters import MemoryMeter


class CudaMemory(MemoryMeter):
    """`max_memory_allocated` is what tensors occupied at the peak; `max_memory_reserved` what the allocator held.

    Left out: the CUDA context (some hundred MiB), and managed memory, which is where paged optimizers keep their state.
    Decide by allocated: it repeats to the bit, while reserved depends on the allocator's history.
    """

    source = "cuda_allocator"

    def _begin(self) -> None:
        self.synchronize()
        torch.cuda.reset_peak_memory_stats()

    def _end(self, phase: str) -> None:
        stats = torch.cuda.memory_stats()
        self.readings[f"memory/{phase}_max_allocated_bytes"] = stats["allocated_bytes.all.peak"]
        self.readings[f"memory/{phase}_max_reserved_bytes"] = stats["reserved_bytes.all.peak"]
        self.readings[f"memory/{phase}_end_allocated_bytes"] = stats["allocated_bytes.all.current"]
        self.readings["memory/alloc_retries"] = stats["num_alloc_retries"]
        free, total = torch.cuda.mem_get_info()
        self.readings[f"memory/{phase}_device_used_bytes"] = total - free
        self.readings["memory/capacity_bytes"] = total

    def synchronize(self) -> None:
        torch.cuda.synchronize()
