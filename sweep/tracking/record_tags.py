"""A Record as MLflow's tags and metrics, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities import Run

from sweep.core import redaction
from sweep.core.measurements import LOSS_BY_STEP, SCORE_BY_STEP
from sweep.core.record import FOLDER, ROW, UNSENT, Outcome, Record

SERIES = frozenset({LOSS_BY_STEP, SCORE_BY_STEP})  # values by step
_TAG_LIMIT = 8000  # characters; MLflow cuts longer values
_PLAIN = ("variant", "setting", "seed", "study", "trial", "conditions_hash", "outcome", "reason")


def tags_of(record: Record) -> dict[str, str]:
    """The tags of a run: its identity, its outcome and its facts."""
    plain = {key: getattr(record, key) for key in _PLAIN}
    facts = {key: value for key, value in record.facts.items() if key not in (ROW, UNSENT, FOLDER)}
    return {key: str(value) for key, value in {**facts, **plain}.items() if value is not None}


def to_record(run: Run) -> Record:
    """The Record that a run's tags and metrics hold, if `fault_of` finds no fault. Values by step are left out: they
    are not final."""
    tags = run.data.tags
    known = {*_PLAIN, "kind"}
    return Record(
        variant=tags["variant"],
        setting=tags["setting"],
        seed=int(tags["seed"]),
        study=tags.get("study"),
        trial=int(tags["trial"]) if "trial" in tags else None,
        conditions_hash=tags.get("conditions_hash"),
        outcome=Outcome(tags["outcome"]),
        reason=tags.get("reason", ""),
        measurements={key: value for key, value in run.data.metrics.items() if key not in SERIES},
        facts={key: value for key, value in tags.items() if key not in known and not key.startswith("mlflow.")},
    )


def fault_of(run: Run) -> str:
    """Why a row below a study's row is not a run of the study, as a sentence; empty for a run. Others write into a
    shared store, too: they log plots below a study, or change tags."""
    tags, row = run.data.tags, f"Row {run.info.run_name} ({run.info.run_id}) below the study's row"
    if tags.get("kind") != "run":
        return f"{row} is left out: it has no tag kind = run, and so is not from this program."
    faults = [f"it has no tag {key}" for key in ("variant", "setting", "seed", "outcome") if key not in tags]
    faults += [
        f"its tag {key} = {tags[key][:40]} is not a number below 2^63"
        for key in ("seed", "trial")
        if key in tags and not _is_count(tags[key])
    ]
    if tags.get("outcome", "ok") not in list(Outcome):
        faults.append(f"its tag outcome = {tags['outcome']} is none of {', '.join(Outcome)}")
    if json_object(tags.get("conditions", "{}")) is None:
        faults.append("its tag conditions is not JSON")
    advice = "Restore the tag, or delete the row: the study's command then repeats the run."
    return f"{row} is left out, since {' and '.join(faults)}. {advice}" if faults else ""


def json_object(text: str) -> dict[str, str] | None:
    """A JSON object, None for any other text. NaN and Infinity are not JSON (RFC 8259)."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) < 2**63


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with secrets masked, and cut to the length that MLflow keeps.

    The tag `conditions` is left out where it is too long: half of a structured value cannot be read.
    """
    clean = {key: redaction.text(str(value)) for key, value in tags.items()}
    return {k: v[:_TAG_LIMIT] for k, v in clean.items() if k != "conditions" or len(v) <= _TAG_LIMIT}
