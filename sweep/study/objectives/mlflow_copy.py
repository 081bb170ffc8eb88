"""The runs of a study in MLflow: a copy of the book. What differs is corrected when a command begins, by these rules:

- A row that ended and that the book does not have is taken into the book: the book was lost, or its coordinator died
  between the two.
- A row of a coordinator that died is closed.
- A run whose row was deleted in MLflow runs again.
- A run whose row is unknown to MLflow is written again: the store was lost or moved.
- A study whose row was deleted begins anew. If the row is restored, and the new one deleted, its runs count again.
- A row that is not from this program is left alone.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweep.core.artifacts import WEIGHTS_FOLDER
from sweep.core.errors import UserError, first_line
from sweep.core.record import FOLDER, ROW, Outcome, Record
from sweep.study.book import Book
from sweep.study.conditions import require_same_study
from sweep.study.entry import Entry
from sweep.tracking.mlflow_store import MlflowStore

log = logging.getLogger(__name__)


def opened_study(
    book: Book, runs: MlflowStore, name: str, conditions: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Open the study in the book and in MLflow. Returns the id of its row. UserError under other conditions."""
    parent, begun = runs.find_study(name), book.parents(name)
    deleted = runs.deleted_studies(name)
    if parent is not None:
        parent_id = parent.info.run_id
    else:
        lost = next((one for one in begun if one not in deleted), None)
        if lost is not None:
            book.open(name, lost)
            require_same_study(name, book.conditions or conditions, conditions)
        elif deleted:
            log.warning(
                "Study %s was deleted in MLflow and begins anew. Its old runs count again if this command is stopped, "
                "the new row is deleted, and the old one restored: mlflow runs restore --run-id %s", name, deleted[0],
            )  # fmt: skip
        parent_id = runs.create_study(name, conditions, tags).info.run_id
        if lost is not None:
            log.warning("The row of study %s is not in MLflow: it and its runs are written again.", name)
            book.rename_parent(name, lost, parent_id)
    book.open(name, parent_id)
    known = book.conditions
    before = known or (_conditions_of(runs, parent, conditions) if parent is not None else conditions)
    require_same_study(name, before, conditions)
    if known is None:
        book.set_conditions(conditions)
    return parent_id


def _conditions_of(runs: MlflowStore, parent: Any, now: Mapping[str, str]) -> Mapping[str, str]:
    """The conditions in the study's row. A row without them and without runs was left by a coordinator that died as it
    made the row: it gets those of this command."""
    try:
        return runs.study_conditions(parent)
    except UserError:
        if runs.children(parent.info.run_id, limit=1):
            raise
        runs.write_conditions(parent.info.run_id, now)
        return now


class MlflowCopy:
    """The rows below a study's row. `entry_of` makes an entry of the book from a Record."""

    def __init__(self, book: Book, runs: MlflowStore, parent_id: str, entry_of: Callable[[Record], Entry]):
        self._book = book
        self._runs = runs
        self._parent_id = parent_id
        self._entry_of = entry_of

    def agree(self) -> None:
        """Make the book and MLflow agree, by the rules of this module."""
        known = self._book.rows()
        found = self._runs.rows(self._parent_id)
        for row in found:
            going = row.is_running and self._book.is_alive(row.record.facts.get("coordinator", ""))
            if going:
                continue
            record = row.record.added({}, {ROW: row.run_id})
            if row.run_id not in known and record.outcome.final:
                self._book.adopt(record.setting, record.seed, self._entry_of(record))
            if row.is_running:
                self._runs.end(row.run_id, record.outcome)
        gone = {run_id: run for run_id, run in known.items() if run_id not in {row.run_id for row in found}}
        if gone:
            deleted = self._runs.deleted_below(self._parent_id)
            self._book.again([run for run_id, run in gone.items() if run_id in deleted])
            for run in (run for run_id, run in gone.items() if run_id not in deleted):
                self._book.set_unsent(run)

    def send(self) -> bool:
        """Write the runs that MLflow lacks. False if one could not be written, with a warning."""
        for unsent in self._book.unsent():
            record = _record(unsent.record)
            try:
                row = self._runs.send(record, self._parent_id, Path(record.facts.get(FOLDER, "")))
            except UserError as error:
                log.warning("%s is in hydra.sweeper.storage and not in MLflow yet: %s", record.name, first_line(error))
                return False
            self._book.set_sent(unsent.run, row)
            if record.facts.get(FOLDER):
                shutil.rmtree(Path(record.facts[FOLDER], WEIGHTS_FOLDER), ignore_errors=True)  # the store has a copy
        return True

    def records(self) -> dict[int, Record]:
        """The Records of the runs that have ended, by their run in the book."""
        return {run: _record(content) for run, content in self._book.records().items()}


def _record(content: Mapping[str, object]) -> Record:
    return Record(**{**content, "outcome": Outcome(str(content["outcome"]))})
