"""Meters of a run: one file per meter, each a context manager around a phase of the run.

Phases are `load`, `train` and `eval`. Peaks are reset between them, since generation at evaluation can need more than
training, and a decision on the peak of the whole process would then be about evaluation. The names are the same on
every device; `source` states what was counted.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.meters.memory_timeline import StepMemory, growth_bytes_per_step, least_growth_bytes, ranges

if TYPE_CHECKING:
    import torch

PHASES = ("load", "train", "eval")
WATCHED_BATCHES = 4  # of an evaluation


@dataclass(frozen=True, kw_only=True)
class PhaseMeter(ABC):
    """A further measurement of each phase: a component of `meters.extra`, whose keys are names of one's own."""

    @abstractmethod
    def start(self, phase: str) -> Callable[[], Mapping[str, float]]:
        """Start to measure a phase. The returned function ends it, and returns measurements by their keys in the
        record: a group, the phase, and the unit, as in `time/train_cpu_seconds`."""


@dataclass(frozen=True, kw_only=True)
class Meters:
    """Options of the meters. They do not change what a model learns, so they are not conditions."""

    oom_snapshot: bool = False
    """Whether a CUDA run that is out of memory saves its allocator's history, for pytorch.org/memory_viz (slower)."""
    extra: dict[str, PhaseMeter] = field(default_factory=dict)
    """Further meters: a name to a component that is derived from `sweep.meters.PhaseMeter`."""


class MemoryMeter(ABC):
    """Peak memory of the run's tensors by phase. `source` names what was counted. Figures of different sources are
    never compared."""

    source: str
    costs_time = False  # whether a measured step is slower than others

    def __init__(self) -> None:
        self.readings: dict[str, float] = {}
        self.facts: dict[str, str] = {"memory_source": self.source}
        self.timeline: list[StepMemory] = []
        self.extra: Sequence[PhaseMeter] = ()
        self.ran_out = False  # whether an allocation failed in the current phase, whichever error followed
        self._model: torch.nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one phase. If the phase raises an error, the readings until then remain.

        The garbage of the previous phase is collected first. A Trainer and its optimizer refer to each other: without
        the collection, the peak of evaluation would contain them or not, by chance. The first phase starts the meter:
        on a GPU, that can fail as any other use of the GPU can.
        """
        self.ran_out = False
        if self.readings:
            gc.collect()
        self._batches: list[int] = []
        self._begin()
        stops = [meter.start(name) for meter in self.extra]
        started = time.perf_counter()
        try:
            yield
        finally:
            self.readings[f"time/{name}_seconds"] = time.perf_counter() - started
            for stop in stops:
                self.readings.update(stop())
            self._end(name)
            growth = least_growth_bytes(self._batches[1:])  # the first may allocate what stays
            if growth is not None:
                self.readings[f"memory/{name}_growth_bytes_per_batch"] = growth

    def batch(self, number: int) -> AbstractContextManager[None]:
        """A window around batch `number` (from 0) of an evaluation. The first batch has the longest inputs; the next
        three show whether memory grows from batch to batch."""
        wanted = number < WATCHED_BATCHES
        if wanted:
            self._batches.append(self._live_bytes())
        return self.window(wanted)

    def window(self, wanted: bool = True) -> AbstractContextManager[None]:
        """A meter that costs time measures inside wanted windows only. Another meter always measures."""
        return nullcontext()

    @contextmanager
    def step(self, number: int, wanted: bool = True) -> Iterator[None]:
        """A window around optimizer step `number` (from 1), recorded in the timeline."""
        yield

    def aside(self) -> AbstractContextManager[None]:
        """Work inside a phase that the phase's peak does not include."""
        return nullcontext()

    def watch(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Give the meter a model that was created outside its windows, and the optimizer that holds its state."""
        self._model, self._optimizer = model, optimizer

    def paged_bytes(self) -> int:
        """Bytes of the optimizer's state that the peaks do not contain."""
        return 0

    def synchronize(self) -> None:  # noqa: B027  a CPU need not wait
        """Wait for the device, before the clock is read."""

    def out_of_memory(self) -> Mapping[str, float]:
        """The live memory when memory ran out, by category: `memory/oom_live_<category>_bytes`. Called while the error
        is handled."""
        return live_figures(self._model, self._optimizer, self._live_bytes())

    def close_timeline(self, steps: int) -> None:
        """Record which steps were measured, and by how much memory grew from step to step. Growth is 0 unless something
        keeps tensors alive."""
        if not self.timeline:
            return
        self.facts["memory_steps"] = f"{ranges([step.step for step in self.timeline])} of {steps}"
        growth = growth_bytes_per_step(self.timeline)
        if growth is not None:
            self.readings["memory/train_growth_bytes_per_step"] = growth

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self, phase: str) -> None: ...

    @abstractmethod
    def _live_bytes(self) -> int:
        """Bytes of the tensors that are alive now."""


def live_figures(
    model: torch.nn.Module | None, optimizer: torch.optim.Optimizer | None, live_bytes: int
) -> dict[str, float]:
    """The live memory by category, as figures of the record."""
    from sweep.meters.live_memory import by_category

    return {f"memory/oom_live_{name}_bytes": size for name, size in by_category(model, optimizer, live_bytes).items()}


def memory_meter(device_type: str, options: Meters | None = None, folder: Path | None = None) -> MemoryMeter:
    """The memory meter of a type of device. It writes snapshots to `folder`."""
    if device_type == "cuda":
        from sweep.meters.cuda import CudaMemory

        return CudaMemory(snapshot_folder=folder if options is not None and options.oom_snapshot else None)
    from sweep.meters.cpu import LiveTensorMemory

    return LiveTensorMemory()
