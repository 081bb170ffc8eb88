"""The parts of a record that judge a run: changes to try next, and warnings about doubtful figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.config.schema import RunConfig
from sweep.core.record import Outcome, Record
from sweep.diagnostics import mitigations
from sweep.diagnostics.sanity_checks import warnings
from sweep.memory import Machine, Prediction, predict
from sweep.meters import PHASES
from sweep.processes import isolated_call


def remarked(record: Record, config: RunConfig, plain: Mapping[str, Any], precision: str) -> Record:
    """The record with the facts `suggestions` (a numbered line each) and `warnings` (a line each), where there are any.

    After out of memory, the predictor estimates what each suggestion saves: some seconds, in a process of its own.
    `plain` is the config as plain containers; `precision` is what training computed in, with "auto" resolved.
    """
    machine, phase = machine_of(record), last_phase(record)
    if phase == "train" and config.train.eval_steps is not None:
        phase = None  # training evaluates too
    steps = mitigations.suggestions(record.outcome, mitigations.Situation(config, machine.kind, precision, phase))
    if record.outcome is Outcome.OOM:
        steps = mitigations.with_savings(steps, plain, lambda configs: _peaks(configs, machine, phase))
    rate = config.variant.learning_rate * config.study.learning_rate_multiplier
    found = {
        "suggestions": mitigations.text(steps),
        "warnings": "\n".join(warnings(record.measurements, config.task.higher_is_better, rate, config.variant)),
    }
    return replace(record, facts={**record.facts, **{key: value for key, value in found.items() if value}})


def last_phase(record: Record) -> str | None:
    """The last phase that the run entered; None where nothing was measured, as after the host killed the process."""
    return next((phase for phase in reversed(PHASES) if f"time/{phase}_seconds" in record.measurements), None)


def machine_of(record: Record) -> Machine:
    """What the run ran on, as far as its record states."""
    capacity = record.measurements.get("memory/capacity_bytes")
    capability = record.facts.get("capability")  # "9.0"
    return Machine(
        kind="cuda" if record.facts.get("memory_source", "").startswith("cuda") else "cpu",
        capability=tuple(map(int, capability.split("."))) if capability else None,
        name=record.facts.get("device", ""),
        capacity_bytes=None if capacity is None else int(capacity),
    )


def _peaks(configs: Sequence[Mapping[str, Any]], machine: Machine, phase: str | None) -> list[float | None]:
    """The predicted peak of each config in this phase, or in the phase that needs most; None without a prediction."""
    try:
        found = predict(configs, machine)
    except isolated_call.Stopped:
        return [None] * len(configs)
    return [_peak(answer, phase) if isinstance(answer, Prediction) else None for answer in found]


def _peak(answer: Prediction, phase: str | None) -> float | None:
    by_phase = {"load": answer.load_bytes, "train": answer.allocated_bytes, "eval": answer.eval_bytes}
    return by_phase[phase] if phase else max(peak for peak in by_phase.values() if peak is not None)


def lines(record: Record) -> list[str]:
    """The same for a terminal, below the line of the run."""
    said = [f"  warning: {line}" for line in record.facts.get("warnings", "").splitlines()]
    steps = record.facts.get("suggestions", "").splitlines()
    return [*said, *(["  Try, each by itself:"] if steps else []), *(f"    {step}" for step in steps)]
