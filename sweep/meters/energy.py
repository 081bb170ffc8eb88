"""Energy of the GPUs that a run has leased, in joules: the third cost, after memory and time.

It is the energy of whole devices, with their idle share, from the driver's counter. The host's energy is not included.
If nothing was measured, there is a reason and no figure: an estimate from a device's rated power is not a measurement.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from sweep.runtime import nvml

COUNTER = "nvml_total_energy_counter"
SAMPLES = "nvml_power_samples"
_SAMPLE_SECONDS = 0.1  # drivers update the figure this often


class EnergyMeter:
    """Energy used while it is entered and not paused. `joules` is the sum over the leased GPUs, None if nothing
    measures it. `source` states how it was measured, or why it was not.

    The driver counts millijoules for GPUs since Volta (`nvmlDeviceGetTotalEnergyConsumption`). Two readings have only
    the error of the counter, which is updated some ten times a second. Older GPUs report their power only: it is
    sampled ten times a second and integrated, and `source` states so.
    """

    def __init__(self) -> None:
        self.joules: float | None = None
        self.source = "none: nothing was measured yet"
        self._parts: list[float | None] = []  # joules between pauses; None if a part was not measured
        self._counters: list[int] = []
        self._sampler: _PowerSampler | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> EnergyMeter:
        uuids = nvml.leased_uuids()
        if not uuids:
            self.source = "none: no NVIDIA GPU, and no counter of the CPU's is read"
            return self
        try:
            self._handles = nvml.handles(uuids)
        except nvml.Unavailable as error:
            self.source = f"none: {error}"
            return self
        self._resume()
        return self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Work that the figure does not include, such as an evaluation inside training: it can use more energy than
        the training, and neither time nor throughput of the training include it."""
        self._take()
        try:
            yield
        finally:
            self._resume()

    def _resume(self) -> None:
        try:
            self._counters = [_millijoules(handle) for handle in self._handles]
        except nvml.Unavailable:
            self._sample()

    def _sample(self) -> None:
        try:
            sum(_watts(handle) for handle in self._handles)
        except nvml.Unavailable as error:
            self.source = f"none: neither an energy counter nor power readings: {error}"
            self._parts.append(None)
            return
        self._sampler = _PowerSampler(self._handles)
        self._sampler.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take()
        if self._parts and None not in self._parts:
            self.joules = sum(self._parts)

    def _take(self) -> None:
        """Add the energy since the last pause. A part that cannot be measured leaves the whole without a figure."""
        part, source = None, ""
        try:
            if self._counters:
                part = counted_joules(self._counters, [_millijoules(handle) for handle in self._handles])
                source = COUNTER if part is not None else "none: the energy counter decreased"
            elif self._sampler is not None:
                part = integrated_joules(self._sampler.stop())
                source = SAMPLES if part is not None else "none: fewer than two power readings"
            else:
                return  # nothing measures here, and `source` has the reason
        except nvml.Unavailable as reason:
            source = f"none: {reason}"
        self._counters, self._sampler = [], None
        if None not in self._parts:
            self.source = source
        self._parts.append(part)


def counted_joules(before: Sequence[int], after: Sequence[int]) -> float | None:
    """Joules between two readings of counters in millijoules, summed over the GPUs. None where a counter decreased: the
    driver was loaded again in between, and started from 0."""
    differences = [end - begin for begin, end in zip(before, after, strict=True)]
    return sum(differences) / 1000 if min(differences) >= 0 else None


def integrated_joules(samples: Sequence[tuple[float, float]]) -> float | None:
    """The integral of (seconds, watts) by trapezoids; None for fewer than two samples."""
    if len(samples) < 2:
        return None
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in itertools.pairwise(samples))


class _PowerSampler(threading.Thread):
    """Samples the power of all GPUs together, until it is stopped."""

    def __init__(self, handles: Sequence[Any]) -> None:
        super().__init__(daemon=True, name="power-samples")
        self._handles_read = list(handles)
        self._done = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._failed: nvml.Unavailable | None = None

    def run(self) -> None:
        while self._failed is None:
            self._take()
            if self._done.wait(_SAMPLE_SECONDS):
                return

    def _take(self) -> None:
        try:
            watts = sum(_watts(handle) for handle in self._handles_read)
        except nvml.Unavailable as error:
            self._failed = error
            return
        self._samples.append((time.perf_counter(), watts))

    def stop(self) -> list[tuple[float, float]]:
        """Take the last sample, and return all samples.

        Raises:
            Unavailable: a reading failed; the integral would be incomplete.
        """
        self._done.set()
        self.join()
        self._take()
        if self._failed is not None:
            raise self._failed
        return self._samples


def _millijoules(handle: Any) -> int:
    return int(nvml.ask("nvmlDeviceGetTotalEnergyConsumption", handle))


def _watts(handle: Any) -> float:
    return nvml.ask("nvmlDeviceGetPowerUsage", handle) / 1000
