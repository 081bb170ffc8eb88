"""What is said about a run beside its figures, in its record: what to try next, and what gives reason to doubt."""

from __future__ import annotations

from dataclasses import replace

from sweep import advice
from sweep.config import RunConfig
from sweep.doubts import doubts
from sweep.record import Outcome, Record


def remarked(record: Record, config: RunConfig, precision: str) -> Record:
    """The record with the facts `advice` (a numbered line each) and `doubts` (a line each), where there are any.

    `precision` is what training computed in, as "auto" was resolved.
    """
    on = "cuda" if record.facts.get("memory_source", "").startswith("cuda") else "cpu"
    steps = {
        Outcome.OOM: lambda: advice.after_oom(config, precision, on),
        Outcome.DIVERGED: lambda: advice.after_divergence(config, precision),
    }.get(record.outcome, list)()
    found = {
        "advice": advice.text(steps),
        "doubts": "\n".join(doubts(record.measurements, config.task.higher_is_better)),
    }
    return replace(record, facts={**record.facts, **{key: value for key, value in found.items() if value}})


def lines(record: Record) -> list[str]:
    """For a terminal, below the line of the run."""
    said = [f"  doubt: {line}" for line in record.facts.get("doubts", "").splitlines()]
    steps = record.facts.get("advice", "").splitlines()
    return [*said, *(["  Try, each by itself:"] if steps else []), *(f"    {step}" for step in steps)]
