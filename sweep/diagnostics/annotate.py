"""What is said about a run beside its figures, in its record: what to try next, and what gives reason to doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.config.schema import RunConfig
from sweep.core.record import Outcome, Record
from sweep.diagnostics import mitigations
from sweep.diagnostics.sanity_checks import doubts
from sweep.memory import Machine, Prediction, predict
from sweep.processes import isolated_call


def remarked(record: Record, config: RunConfig, plain: Mapping[str, Any], precision: str) -> Record:
    """The record with the facts `suggestions` (a numbered line each) and `warnings` (a line each), where there are any.

    `plain` is the config as containers; `precision` is what training computed in, as "auto" was resolved. After out of
    memory, the predictor is asked what each step would save: some seconds, in a process of its own.
    """
    steps: list[mitigations.Mitigation] = []
    if record.outcome is Outcome.OOM:
        machine = machine_of(record)
        steps = mitigations.with_savings(
            mitigations.after_oom(config, precision, machine.kind),
            plain,
            lambda configs: _train_bytes(configs, machine),
        )
    elif record.outcome is Outcome.DIVERGED:
        steps = mitigations.after_divergence(config, precision)
    rate = config.variant.learning_rate * config.study.learning_rate_multiplier
    found = {
        "suggestions": mitigations.text(steps),
        "warnings": "\n".join(doubts(record.measurements, config.task.higher_is_better, rate)),
    }
    return replace(record, facts={**record.facts, **{key: value for key, value in found.items() if value}})


def machine_of(record: Record) -> Machine:
    """What the run ran on, as far as its record tells."""
    capacity = record.measurements.get("memory/capacity_bytes")
    capability = record.facts.get("capability")  # "9.0"
    return Machine(
        kind="cuda" if record.facts.get("memory_source", "").startswith("cuda") else "cpu",
        capability=tuple(map(int, capability.split("."))) if capability else None,
        name=record.facts.get("device", ""),
        capacity_bytes=None if capacity is None else int(capacity),
    )


def _train_bytes(configs: Sequence[Mapping[str, Any]], machine: Machine) -> list[float | None]:
    try:
        found = predict(configs, machine)
    except isolated_call.Stopped:
        return [None] * len(configs)
    return [answer.allocated_bytes if isinstance(answer, Prediction) else None for answer in found]


def lines(record: Record) -> list[str]:
    """For a terminal, below the line of the run."""
    said = [f"  warning: {line}" for line in record.facts.get("warnings", "").splitlines()]
    steps = record.facts.get("suggestions", "").splitlines()
    return [*said, *(["  Try, each by itself:"] if steps else []), *(f"    {step}" for step in steps)]
