"""The result of a training run: from Hydra's job return to its Record, and to the values for Optuna."""

from __future__ import annotations

from hydra.core.utils import JobReturn

from sweep.config.schema import Study
from sweep.core import redaction
from sweep.core.errors import UserError
from sweep.core.record import UNSENT, Outcome, Record
from sweep.hydra_compat.isolated_job import exception_of
from sweep.memory.prediction_metrics import predicted_peak
from sweep.study.entry import Entry


def record_of(returned: JobReturn) -> Record:
    """The run's Record. A job that failed raises its exception: a training run has an outcome, so that the exception
    comes from the store or from our own code."""
    error = exception_of(returned)
    if error is not None:
        raise error
    if not isinstance(returned.return_value, Record):
        raise UserError(f"a run returned {type(returned.return_value).__name__} instead of a Record")
    return returned.return_value


def to_optuna_values(record: Record, study: Study, objectives: int) -> Entry:
    """The score, and with two objectives the memory in bytes; and the constraints that the run violated: the fraction
    of the budget by which its memory is over the budget, and 1 for out of memory, divergence and pruning."""
    measured = record.measurements
    score = measured.get("score") if record.outcome in (Outcome.OK, Outcome.PRUNED) else None
    memory = measured.get(study.memory_metric)
    if memory is None and record.outcome is Outcome.OOM:
        memory = predicted_peak(record)  # the run was not launched: only the prediction is known
    violated = {
        "out_of_memory": float(record.outcome is Outcome.OOM),
        "diverged": float(record.outcome is Outcome.DIVERGED),
        "pruned": float(record.outcome is Outcome.PRUNED),
    }
    if study.memory_budget_bytes is not None and memory is not None:
        violated["memory_budget"] = memory / study.memory_budget_bytes - 1
    return Entry(
        outcome=str(record.outcome),
        values=(score, memory)[:objectives],
        violated=violated,
        final=record.outcome.final,
        record=redaction.tree(record.as_dict()),
        unsent=record.facts.get(UNSENT) == "true",
    )
