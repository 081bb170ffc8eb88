"""What came of a run: from Hydra's job return to its Record, and to what the study's trials are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus

from sweep.config.schema import Study
from sweep.core.errors import UserError
from sweep.core.record import Outcome, Record
from sweep.memory.prediction_metrics import PREDICTED

if TYPE_CHECKING:
    from sweep.study.trial_store import Entry


def record_of(returned: JobReturn) -> Record:
    """The run's Record. An exception here is not the run's, which has an outcome: it is the store's, or ours."""
    if returned.status == JobStatus.COMPLETED and isinstance(returned.return_value, Record):
        return returned.return_value
    value = returned._return_value  # the property would print all overrides, credentials among them
    if isinstance(value, BaseException):
        raise value
    raise UserError(f"a run returned {type(value).__name__} instead of a Record")


def to_optuna_values(record: Record, study: Study, objectives: int) -> Entry:
    """The score, and with two objectives the memory in bytes; and the constraints that the run broke: by how much of
    the budget it needed more memory, and 1 for out of memory, divergence and pruning."""
    from sweep.study.trial_store import Entry

    measured = record.measurements
    score = measured.get("score") if record.outcome in (Outcome.OK, Outcome.PRUNED) else None
    memory = measured.get(study.memory_metric)
    if memory is None and record.outcome is Outcome.OOM:
        memory = measured.get(PREDICTED)  # never launched: this is what is known
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
    )
