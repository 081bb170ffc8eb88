"""The figures of a prediction, from the events of a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sweep.memory.prediction import Machine
from sweep.memory.simulation.allocation_log import BACKWARD, EVALUATION, FORWARD, LOAD, OPTIMIZER, Block, Event
from sweep.memory.simulation.caching_allocator import CachingAllocator

PHASES = {LOAD: "load", FORWARD: "train", BACKWARD: "train", OPTIMIZER: "train", EVALUATION: "eval"}


class Level(NamedTuple):
    """Bytes after one event. `reserved` is None on the CPU, which has no caching allocator."""

    allocated: int
    requested: int
    reserved: int | None


class Peaks(NamedTuple):
    """The figures of one phase. `where` is the index of the event at the peak of `allocated`."""

    allocated: int
    requested: int
    reserved: int | None
    where: int


def levels(events: Sequence[Event], machine: Machine) -> Iterator[Level]:
    """The memory in use after each event: the sum of the blocks on the CPU, the caching allocator's figures on CUDA."""
    if machine.kind == "cpu":
        total = 0
        sizes: dict[int, int] = {}
        for event in events:
            if event.size is not None:
                sizes[event.key] = event.size
            total += sizes[event.key] if event.size is not None else -sizes.pop(event.key)
            yield Level(total, total, None)
        return
    allocator = CachingAllocator()
    parts: set[str] = set()
    for event in events:
        if event.part in (FORWARD, BACKWARD) and event.part not in parts:
            parts.add(event.part)
            if event.part == FORWARD:
                allocator.empty_cache()  # as the Trainer does at its start
            allocator.allocate(("workspace", event.part), machine.workspace_bytes)
        if event.size is None:
            allocator.free(event.key)
        else:
            allocator.allocate(event.key, event.size)
        yield Level(allocator.allocated, allocator.requested, allocator.reserved)


def peaks(events: Sequence[Event], machine: Machine) -> dict[str, Peaks]:
    """The peaks of each phase, "load", "train" and "eval"."""
    found: dict[str, Peaks] = {}
    for index, (event, level) in enumerate(zip(events, levels(events, machine), strict=True)):
        phase = PHASES.get(event.part)
        if phase is not None:
            best = found.get(phase, Peaks(*level, index))
            found[phase] = Peaks(
                max(best.allocated, level.allocated),
                max(best.requested, level.requested),
                None if level.reserved is None else max(best.reserved or 0, level.reserved),
                index if level.allocated > best.allocated else best.where,
            )
    return found


def breakdown(events: Sequence[Event], blocks: Mapping[int, Block], peak: Peaks, machine: Machine) -> dict[str, int]:
    """The bytes at the peak by purpose; they sum to `peak.allocated`."""
    live: set[int] = set()
    for event in events[: peak.where + 1]:
        if event.size is None:
            live.remove(event.key)
        else:
            live.add(event.key)
    sizes: Counter[str] = Counter()
    for key in live:
        sizes[blocks[key].category] += blocks[key].size
    if machine.kind == "cuda":
        parts = {event.part for event in events[: peak.where + 1]} & {FORWARD, BACKWARD}
        sizes["workspaces"] = len(parts) * machine.workspace_bytes
        sizes["allocator_rounding"] = peak.allocated - sum(sizes.values())
    return dict(sizes)
