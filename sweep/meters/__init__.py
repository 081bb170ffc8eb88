"""Honest meters: one file per meter, each a context manager around a phase of the run.

Phases are `load`, `train` and `eval`. Peaks are reset between them, since generation at evaluation can need more than
training, and a decision on the peak of the whole process would then be about evaluation.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PHASES = ("load", "train", "eval")


class MemoryMeter(ABC):
    """Peak memory of the run's tensors by phase. `source` names what was counted; figures of different sources are
    never ranked together."""

    source: str

    def __init__(self) -> None:
        self.readings: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one phase. What was measured stays readable when the phase raises."""
        self._begin()
        started = time.perf_counter()
        try:
            yield
        finally:
            self.readings[f"time/{name}_seconds"] = time.perf_counter() - started
            self._end(name)

    def window(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Where a meter costs time, it is on inside wanted windows only. A meter that costs nothing is always on."""
        return nullcontext()

    def watch(self, model: torch.nn.Module) -> None:  # noqa: B027  most meters need not be told
        """Tell the meter about a model that was made outside its windows."""

    def synchronize(self) -> None:  # noqa: B027  a CPU has nothing to wait for
        """Wait for the device, before a clock is read."""

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self, phase: str) -> None: ...


def memory_meter(device_type: str) -> MemoryMeter:
    """The meter for the device that tensors are on."""
    if device_type == "cuda":
        from sweep.meters.cuda import CudaMemory

        return CudaMemory()
    from sweep.meters.cpu import LiveTensorMemory

    return LiveTensorMemory()
