"""The Pareto front of a study while it runs, for the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sweep.core import formatting
from sweep.core.record import Outcome, Record

_SHOWN = 6  # settings


class Standing(NamedTuple):
    """A setting's means over its `ok` runs so far: the score, and the memory in bytes."""

    setting: str
    score: float
    memory_bytes: float


def front(records: Iterable[Record], memory_metric: str, higher_is_better: bool) -> list[Standing]:
    """The settings that no other setting dominates, the smallest memory first. A setting dominates another one if it is
    at least as good in score and in memory, and better in one of them.

    Runs without a score or without this memory metric are ignored.
    """
    known: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        score, memory = record.measurements.get("score"), record.measurements.get(memory_metric)
        if record.outcome is Outcome.OK and score is not None and memory is not None:
            known.setdefault(record.setting, []).append((score, memory))
    means = [
        Standing(setting, *(sum(values) / len(values) for values in zip(*runs, strict=True)))
        for setting, runs in known.items()
    ]
    sign = 1 if higher_is_better else -1

    def beats(a: Standing, b: Standing) -> bool:
        at_least = sign * a.score >= sign * b.score and a.memory_bytes <= b.memory_bytes
        return at_least and (a.score, a.memory_bytes) != (b.score, b.memory_bytes)

    return sorted(
        (one for one in means if not any(beats(other, one) for other in means)), key=lambda one: one.memory_bytes
    )


def line(standings: list[Standing]) -> str:
    """The front as one line for the console; settings of equal score and memory are one."""
    points: dict[tuple[float, float], list[str]] = {}
    for one in standings:
        points.setdefault((one.score, one.memory_bytes), []).append(one.setting)
    shown = [
        f"{names[0]}{f' and {len(names) - 1} equal' if len(names) > 1 else ''} {score:.4f} at {formatting.gib(memory)}"
        for (score, memory), names in list(points.items())[:_SHOWN]
    ]
    more = [f"and {len(points) - _SHOWN} more"] if len(points) > _SHOWN else []
    return "  front: " + " · ".join([*shown, *more])
