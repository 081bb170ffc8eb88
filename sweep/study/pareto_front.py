"""The Pareto front of a study while it runs: what a person wants to know before the report."""

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
    """Settings to which no other is better in score and no worse in memory, or the other way round; the smallest first.

    Runs without a score or without this memory say nothing.
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
    """For the console."""
    told = [f"{one.setting} {one.score:.4f} at {formatting.gib(one.memory_bytes)}" for one in standings[:_SHOWN]]
    more = [f"and {len(standings) - _SHOWN} more"] if len(standings) > _SHOWN else []
    return "  front: " + " · ".join([*told, *more])
