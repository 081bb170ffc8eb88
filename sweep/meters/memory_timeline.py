"""Memory by step: live bytes at the begin and the end of a step, and the peak in between."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# The first step creates the optimizer's state, which stays: growth is measured after it.
_SETTLED_AFTER = 1


class StepMemory(NamedTuple):
    """One optimizer step, numbered from 1. `reserved_bytes` is None where there is no caching allocator."""

    step: int
    begin_bytes: int
    allocated_bytes: int
    peak_bytes: int
    reserved_bytes: int | None = None


def write(timeline: Sequence[StepMemory], file: Path) -> None:
    """Write a CSV file with one row per measured step. An empty field was not measured."""
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(StepMemory._fields)
        rows.writerows(timeline)


def growth_bytes_per_step(timeline: Sequence[StepMemory]) -> float | None:
    """The smallest growth of live memory from a step's begin to the next step's begin, after the first step.

    A step that keeps no tensor adds none, so a leak shows from one step to the next, long before memory runs out. Live
    memory is compared when steps begin: at their end the batch is still alive, and batches differ in length. The
    smallest growth counts, because a single step may keep something for a good reason. None for fewer than two steps.
    """
    return least_growth_bytes([step.begin_bytes for step in timeline if step.step > _SETTLED_AFTER])


def least_growth_bytes(levels: Sequence[int]) -> float | None:
    """The smallest increase from one level to the next, 0 if a level decreases; None for fewer than two levels."""
    changes = [after - before for before, after in itertools.pairwise(levels)]
    return max(0, min(changes)) if changes else None


def ranges(steps: Sequence[int]) -> str:
    """[1, 2, 3, 50] → "1-3, 50"."""
    parts: list[list[int]] = []
    for step in sorted(set(steps)):
        if parts and step == parts[-1][-1] + 1:
            parts[-1][1:] = [step]
        else:
            parts.append([step])
    return ", ".join("-".join(map(str, part)) for part in parts)
