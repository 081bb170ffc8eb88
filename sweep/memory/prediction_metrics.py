"""The prediction in a run's Record: the figure, its parts, and after the run its error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweep.memory.prediction import Prediction

if TYPE_CHECKING:
    from sweep.core.record import Record

PREDICTED = "memory/predicted_bytes"
_PREDICTED_PAGED = "memory/predicted_paged_bytes"
ERROR = "memory/prediction_error"  # predicted / measured - 1: 0.01 is one per cent too high


def with_prediction(record: Record, prediction: Prediction | None) -> Record:
    """The record of a run that is about to start, with its prediction."""
    if prediction is None:
        return record
    figures = {f"memory/breakdown/{category}_bytes": float(size) for category, size in prediction.breakdown.items()}
    figures[PREDICTED] = float(prediction.allocated_bytes)
    if prediction.paged_bytes:
        figures[_PREDICTED_PAGED] = float(prediction.paged_bytes)
    if prediction.reserved_bytes is not None:
        figures["memory/predicted_reserved_bytes"] = float(prediction.reserved_bytes)
    assumed = [f"{key.replace('_', ' ')}: {value}" for key, value in prediction.assumptions.items()]
    facts = {"memory_prediction": "; ".join([f"{prediction.tier}, ±{prediction.relative_band:.1%}", *assumed])}
    return replace(record, measurements={**record.measurements, **figures}, facts={**record.facts, **facts})


def predicted_peak(record: Record) -> float | None:
    """The predicted `peak_memory_bytes` of a record, None where nothing was predicted."""
    allocated = record.measurements.get(PREDICTED)
    return None if allocated is None else allocated + record.measurements.get(_PREDICTED_PAGED, 0.0)


def with_error(record: Record) -> Record:
    """The record of a run that has ended, with the error of its prediction, where both figures are known."""
    predicted = record.measurements.get(PREDICTED)
    measured = record.measurements.get("max_memory_allocated")
    if not predicted or not measured:
        return record
    return replace(record, measurements={**record.measurements, ERROR: predicted / measured - 1})
