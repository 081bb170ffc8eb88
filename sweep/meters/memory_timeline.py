"""Memory step by step: what was alive when a step began and ended, and the peak in between."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# The first step makes the optimizer's state, which stays: growth is looked for after it.
_SETTLED_AFTER = 1


class StepMemory(NamedTuple):
    """One optimizer step, numbered from 1. `reserved_bytes` is None where there is no caching allocator."""

    step: int
    begin_bytes: int
    allocated_bytes: int
    peak_bytes: int
    reserved_bytes: int | None = None


def write(timeline: Sequence[StepMemory], file: Path) -> None:
    """As CSV, one row per step that the meter saw; an empty field is what was not measured."""
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(StepMemory._fields)
        rows.writerows(timeline)


def growth_bytes_per_step(timeline: Sequence[StepMemory]) -> float | None:
    """By how many bytes a step leaves more behind than it found, at the least, once training has settled.

    A step that keeps nothing leaves none behind, so that a leak is seen from one step to the next, long before memory
    runs out. Told by what is alive when steps begin, since at their end the batch still is, and batches differ in
    length. The least over the steps, because one of them may have had a reason. None for fewer than two settled steps.
    """
    return least_growth_bytes([moment.begin_bytes for moment in timeline if moment.step > _SETTLED_AFTER])


def least_growth_bytes(levels: Sequence[int]) -> float | None:
    """The smallest rise from one of the levels to the next, 0 where one falls; None for fewer than two."""
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
