"""Honest meters: one file per meter, each a context manager around a phase of the run.

Phases are `load`, `train` and `eval`. Peaks are reset between them, since generation at evaluation can need more than
training, and a decision on the peak of the whole process would then be about evaluation. The same names on every
device; `source` says what was counted.
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
    """Options of the meters. They change nothing of what is learned, and so are no conditions.

    `oom_snapshot` keeps the history of CUDA's allocator, for a picture of what was allocated where when memory ran out
    (an artifact for pytorch.org/memory_viz). It costs some time at every allocation, so it is off unless asked for.
    """

    oom_snapshot: bool = False
    extra: dict[str, PhaseMeter] = field(default_factory=dict)


class MemoryMeter(ABC):
    """Peak memory of the run's tensors by phase. `source` names what was counted; figures of different sources are
    never ranked together."""

    source: str
    costs_time = False  # whether a step that is watched is slower than one that is not

    def __init__(self) -> None:
        self.readings: dict[str, float] = {}
        self.facts: dict[str, str] = {"memory_source": self.source}
        self.timeline: list[StepMemory] = []
        self.extra: Sequence[PhaseMeter] = ()
        self._model: torch.nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one phase. What was measured stays readable when the phase raises.

        Garbage of the phase before is none of this one's: a Trainer and its optimizer hold each other, and would be
        counted in the peak of evaluation, or not, as Python happens to collect them.
        """
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
            growth = least_growth_bytes(self._batches[1:])  # the first may make what stays
            if growth is not None:
                self.readings[f"memory/{name}_growth_bytes_per_batch"] = growth

    def batch(self, number: int) -> AbstractContextManager[None]:
        """A window around batch `number` (from 0) of an evaluation: the first, which has the longest inputs, and three
        more, to see whether anything grows from one to the next."""
        wanted = number < WATCHED_BATCHES
        if wanted:
            self._batches.append(self._live_bytes())
        return self.window(wanted)

    def window(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Where a meter costs time, it is on inside wanted windows only. A meter that costs nothing is always on."""
        return nullcontext()

    @contextmanager
    def step(self, number: int, wanted: bool = True) -> Iterator[None]:
        """A window around optimizer step `number` (from 1), kept in the timeline."""
        yield

    def aside(self) -> AbstractContextManager[None]:
        """Within a phase, something that is not part of it: it leaves no trace in the phase's peak."""
        return nullcontext()

    def watch(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Tell the meter about a model that was made outside its windows, and about what holds its optimizer state."""
        self._model, self._optimizer = model, optimizer

    def synchronize(self) -> None:  # noqa: B027  a CPU has nothing to wait for
        """Wait for the device, before a clock is read."""

    def out_of_memory(self) -> Mapping[str, float]:
        """What was alive when memory ran out, by category in bytes: `memory/oom_live_<category>_bytes`. Asked while
        the error is being handled."""
        return _alive(self._model, self._optimizer, self._live_bytes())

    def close_timeline(self, steps: int) -> None:
        """Say which steps were seen, and by how much memory grew from step to step, which is 0 unless something keeps
        tensors alive."""
        if not self.timeline:
            return
        self.facts["memory_steps"] = f"{ranges([moment.step for moment in self.timeline])} of {steps}"
        growth = growth_bytes_per_step(self.timeline)
        if growth is not None:
            self.readings["memory/train_growth_bytes_per_step"] = growth

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self, phase: str) -> None: ...

    @abstractmethod
    def _live_bytes(self) -> int:
        """Bytes of tensors that are alive now."""


def _alive(model: torch.nn.Module | None, optimizer: torch.optim.Optimizer | None, live_bytes: int) -> dict[str, float]:
    from sweep.meters.live_memory import by_category

    return {f"memory/oom_live_{name}_bytes": size for name, size in by_category(model, optimizer, live_bytes).items()}


def memory_meter(device_type: str, options: Meters | None = None, folder: Path | None = None) -> MemoryMeter:
    """The meter for the device that tensors are on. `folder` is where a snapshot goes."""
    if device_type == "cuda":
        from sweep.meters.cuda import CudaMemory

        return CudaMemory(snapshot_folder=folder if options is not None and options.oom_snapshot else None)
    from sweep.meters.cpu import LiveTensorMemory

    return LiveTensorMemory()
