"""What a study's book says. `Book` writes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from sweep.core import process_identity, redaction
from sweep.core.errors import UserError, first_line
from sweep.study.book_tables import COORDINATORS, RUNS, SETTINGS, STUDIES, database_now, opened
from sweep.study.entry import Entry, Seed
from sweep.study.storage import KEY

WANTED, RUNNING, ENDED = "wanted", "running", "ended"
Params = dict[str, Any]


class Unsent(NamedTuple):
    """A run that ended and is not in MLflow yet: its Record as a dictionary."""

    run: int
    record: Mapping[str, Any]


class BookReader:
    """One study in the book. `storage` is the value of `hydra.sweeper.storage`; None keeps the book in memory."""

    def __init__(self, storage: Any):
        self.me = process_identity.identity()
        try:
            self._engine = opened(storage)
        except (SQLAlchemyError, ImportError) as error:
            raise UserError(redaction.text(f"{KEY} = {storage} does not work: {first_line(error)}")) from error
        self._lock = threading.RLock()  # a database in memory has one connection, and the heartbeat is a thread
        self._study = 0

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self._lock, self._engine.begin() as connection:
            yield connection

    def parents(self, name: str) -> list[str]:
        """The ids of the rows in MLflow under which a study of this name was begun, latest first."""
        with self._begin() as c:
            found = select(STUDIES.c.parent).where(STUDIES.c.name == name).order_by(STUDIES.c.id.desc())
            return list(c.scalars(found))

    @property
    def conditions(self) -> dict[str, str] | None:
        """What is equal in all runs of the study; None before it is set."""
        with self._begin() as c:
            text = c.scalar(select(STUDIES.c.conditions).where(STUDIES.c.id == self._study))
        return json.loads(text) if text else None

    def others(self, study: str | None = None) -> list[str]:
        """The other coordinators of this study, or of all studies of a name, that are alive."""
        with self._begin() as c:
            named = select(STUDIES.c.id).where(STUDIES.c.name == study)
            studies = [self._study] if study is None else c.scalars(named).all()
            return [name for number in studies for name in self._alive(c, number) if name != self.me]

    def is_alive(self, name: str) -> bool:
        with self._begin() as c:
            return name == self.me or name in self._alive(c)

    def _alive(self, c: Connection, study: int | None = None) -> list[str]:
        """A process of this machine is looked up; another one counts as alive until its last beat is too old."""
        age = (database_now() - COORDINATORS.c.beat).label("age")
        number = self._study if study is None else study
        rows = c.execute(select(COORDINATORS.c.name, age).where(COORDINATORS.c.study == number))
        return [name for name, age in rows if process_identity.is_alive(name, float(age))]

    def left(self) -> int:
        """Runs that are wanted or running."""
        open_ = RUNS.c.state.in_([WANTED, RUNNING])
        counted = select(func.count()).select_from(RUNS.join(SETTINGS, RUNS.c.setting == SETTINGS.c.id))
        goes_on = (RUNS.c.state == RUNNING) | SETTINGS.c.stopped.is_(False)
        with self._begin() as c:
            return int(c.scalar(counted.where(RUNS.c.study == self._study, open_, goes_on)) or 0)

    def count(self) -> int:
        """Settings in the book."""
        with self._begin() as c:
            return int(c.scalar(self._settings(func.count())) or 0)

    def settings(self) -> dict[str, tuple[int, Params | None, int | None, bool]]:
        """Key → number, parameters, trial in Optuna, and whether Optuna has its result."""
        with self._begin() as c:
            rows = c.execute(self._settings(SETTINGS.c.key, SETTINGS.c.id, SETTINGS.c.params, SETTINGS.c.trial,
                                            SETTINGS.c.reported).order_by(SETTINGS.c.position))  # fmt: skip
            return {
                key: (n, json.loads(params) if params else None, trial, reported)
                for key, n, params, trial, reported in rows
            }

    def entries(self, setting: int | None = None) -> dict[int, dict[Seed, Entry]]:
        """Setting → the runs that have ended, without their Records."""
        columns = (RUNS.c.setting, RUNS.c.seed, RUNS.c.outcome, RUNS.c.result, RUNS.c.final)
        where = [RUNS.c.study == self._study, RUNS.c.state == ENDED]
        where += [] if setting is None else [RUNS.c.setting == setting]
        found: dict[int, dict[Seed, Entry]] = {}
        with self._begin() as c:
            for number, seed, outcome, result, final in c.execute(
                select(*columns).where(*where).order_by(RUNS.c.place)
            ):
                values, violated = json.loads(result)
                found.setdefault(number, {})[seed_of(seed)] = Entry(outcome, tuple(values), violated, final)
        return found

    def records(self) -> dict[int, Mapping[str, Any]]:
        """Run → the Record of each run that has ended, as a dictionary."""
        with self._begin() as c:
            where = (RUNS.c.study == self._study, RUNS.c.state == ENDED, RUNS.c.record.is_not(None))
            return {
                number: json.loads(text) for number, text in c.execute(select(RUNS.c.id, RUNS.c.record).where(*where))
            }

    def crashes(self) -> dict[tuple[str, Seed], int]:
        """By key and seed: how often a run was killed while its coordinator was alive."""
        rows = select(SETTINGS.c.key, RUNS.c.seed, RUNS.c.crashes).join(SETTINGS, RUNS.c.setting == SETTINGS.c.id)
        with self._begin() as c:
            found = c.execute(rows.where(RUNS.c.study == self._study, RUNS.c.crashes > 0))
            return {(key, seed_of(seed)): count for key, seed, count in found}

    def closable(self) -> list[tuple[int, int]]:
        """(setting, trial) of the settings whose runs have all ended and whose trial in Optuna is open."""
        open_ = select(RUNS.c.setting).where(
            RUNS.c.study == self._study,
            (RUNS.c.state == RUNNING) | ((RUNS.c.state == WANTED) & SETTINGS.c.stopped.is_(False)),
            RUNS.c.setting == SETTINGS.c.id,
        )  # fmt: skip
        untold = self._settings(SETTINGS.c.id, SETTINGS.c.trial)
        untold = untold.where(SETTINGS.c.reported.is_(False), SETTINGS.c.trial.is_not(None), ~open_.exists())
        with self._begin() as c:
            return [(number, trial) for number, trial in c.execute(untold)]

    def trial_of(self, setting: int) -> tuple[Params | None, int | None]:
        """The setting's parameters, and its number in Optuna."""
        with self._begin() as c:
            params, trial = c.execute(select(SETTINGS.c.params, SETTINGS.c.trial).where(SETTINGS.c.id == setting)).one()
        return (json.loads(params) if params else None), trial

    def unsent(self) -> list[Unsent]:
        """The runs that ended and are not in MLflow yet."""
        with self._begin() as c:
            where = (RUNS.c.study == self._study, RUNS.c.state == ENDED, RUNS.c.sent.is_(False))
            return [
                Unsent(n, json.loads(text)) for n, text in c.execute(select(RUNS.c.id, RUNS.c.record).where(*where))
            ]

    def rows(self) -> dict[str, int]:
        """The id of a row in MLflow → its run, of the runs that have ended."""
        with self._begin() as c:
            where = (RUNS.c.study == self._study, RUNS.c.state == ENDED, RUNS.c.row.is_not(None))
            return {row.row: row.id for row in c.execute(select(RUNS.c.row, RUNS.c.id).where(*where))}

    def _settings(self, *columns: Any) -> Select[Any]:
        return select(*columns).where(SETTINGS.c.study == self._study)


def text_of(seed: Seed) -> str:
    """A seed in the book."""
    return "" if seed is None else str(seed)


def seed_of(text: str) -> Seed:
    """A seed of the book."""
    return int(text) if text else None
