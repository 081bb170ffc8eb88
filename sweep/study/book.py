"""The book of a study: which runs are wanted, who runs them, and how they ended. It is the one record that decides.
Optuna's study and MLflow's runs are copies of it, which `trial_store` and `objectives.training_session` write.

             claim               end
    wanted ─────────▶ running ─────────▶ ended
      ▲                 │                  │
      └─────────────────┴──────────────────┘
       its owner died     next command, if the outcome is not final

Each method is one transaction. A crash between two of them leaves a state of the drawing, and the next claim or
command goes on from there. The tables are in the database that `hydra.sweeper.storage` names, and times are that
database's own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from sweep.core.record import ROW
from sweep.study.book_reader import ENDED, RUNNING, WANTED, BookReader, Params, seed_of, text_of
from sweep.study.book_tables import COORDINATORS, RUNS, SETTINGS, STUDIES, database_now
from sweep.study.entry import Entry, Seed

_ENOUGH = ("oom", "pruned")  # outcomes after which a setting gets no further replicate


class Claim(NamedTuple):
    """A run that this process may start. `trial` is the number of its setting in Optuna, None before the first run."""

    run: int
    setting: int
    key: str
    params: Params
    seed: Seed
    trial: int | None


class Book(BookReader):
    """Writes the book. Each method is one transaction."""

    def open(self, name: str, parent: str = "") -> None:
        """Choose the study, and create it if it is new. `parent` is the id of its row in MLflow: if that row is
        deleted, the study begins anew under another row."""
        with self._begin() as c:
            where = (STUDIES.c.name == name, STUDIES.c.parent == parent)
            found = c.scalar(select(STUDIES.c.id).where(*where))
            self._study = found or c.execute(insert(STUDIES).values(name=name, parent=parent)).inserted_primary_key[0]

    def rename_parent(self, name: str, old: str, new: str) -> None:
        """The study's row in MLflow was lost and created again."""
        with self._begin() as c:
            c.execute(update(STUDIES).where(STUDIES.c.name == name, STUDIES.c.parent == old).values(parent=new))

    def set_conditions(self, values: Mapping[str, str]) -> None:
        with self._begin() as c:
            c.execute(update(STUDIES).where(STUDIES.c.id == self._study).values(conditions=json.dumps(dict(values))))

    # Coordinators

    def beat(self) -> None:
        """Record that this coordinator is alive, once the study is open."""
        if not self._study:
            return
        mine = (COORDINATORS.c.study == self._study, COORDINATORS.c.name == self.me)
        with self._begin() as c:
            if not c.execute(update(COORDINATORS).where(*mine).values(beat=database_now())).rowcount:
                c.execute(insert(COORDINATORS).values(study=self._study, name=self.me, beat=database_now()))

    def leave(self) -> None:
        """Record that this coordinator has ended cleanly."""
        with self._begin() as c:
            c.execute(delete(COORDINATORS).where(COORDINATORS.c.study == self._study, COORDINATORS.c.name == self.me))

    # What is wanted

    def want(self, settings: Iterable[tuple[str, Params]], seeds: Sequence[Seed]) -> None:
        """Add these settings (key, parameters) with a run for each seed, in this order. Runs that exist stay as they
        are. A setting that gets a further run gets another trial in Optuna."""
        with self._begin() as c:
            known = {key: number for number, key in c.execute(self._settings(SETTINGS.c.id, SETTINGS.c.key))}
            new = [(key, params) for key, params in settings if key not in known]
            named = [key for key, _ in settings]
            if new:
                position = len(known)
                c.execute(
                    insert(SETTINGS),
                    [
                        {"study": self._study, "key": key, "params": json.dumps(params), "position": position + place}
                        for place, (key, params) in enumerate(dict(new).items())
                    ],
                )
                known = {key: number for number, key in c.execute(self._settings(SETTINGS.c.id, SETTINGS.c.key))}
            self._want_runs(c, [known[key] for key in named], seeds)

    def _want_runs(self, c: Connection, settings: Sequence[int], seeds: Sequence[Seed]) -> None:
        found = c.execute(select(RUNS.c.setting, RUNS.c.seed).where(RUNS.c.study == self._study))
        there = {(setting, seed) for setting, seed in found}
        wanted = [
            {"study": self._study, "setting": setting, "seed": text_of(seed), "place": place, "state": WANTED}
            for setting in settings
            for place, seed in enumerate(seeds)
            if (setting, text_of(seed)) not in there
        ]
        if wanted:
            c.execute(insert(RUNS), wanted)
            self._reopen(c, {run["setting"] for run in wanted})

    def _reopen(self, c: Connection, settings: Iterable[int]) -> None:
        """These settings get further runs: if their trials are closed, they get new ones."""
        for number in settings:
            closed = (SETTINGS.c.id == number, SETTINGS.c.reported.is_(True))
            c.execute(update(SETTINGS).where(*closed).values(reported=False, trial=None))

    def grant(self, seeds: Mapping[str, Sequence[Seed]]) -> None:
        """The seeds that settings get for now, by key: further ones are added, and others that wait are removed."""
        with self._begin() as c:
            known = {key: number for number, key in c.execute(self._settings(SETTINGS.c.id, SETTINGS.c.key))}
            for key, wanted in seeds.items():
                waits = (RUNS.c.setting == known[key], RUNS.c.state == WANTED)
                c.execute(delete(RUNS).where(*waits, RUNS.c.seed.not_in([text_of(seed) for seed in wanted])))
                self._want_runs(c, [known[key]], wanted)

    def begin_command(self) -> None:
        """The runs of coordinators that died are wanted again. What an earlier command wanted and did not start is no
        longer wanted, if no other coordinator is alive."""
        with self._begin() as c:
            self._release_dead(c)
            if not [name for name in self._alive(c) if name != self.me]:
                c.execute(delete(RUNS).where(RUNS.c.study == self._study, RUNS.c.state == WANTED))

    def retry(self, most_crashes: int | None = None) -> None:
        """Runs without a final outcome are wanted again, unless they have crashed `most_crashes` times."""
        with self._begin() as c:
            lost = [RUNS.c.study == self._study, RUNS.c.state == ENDED, RUNS.c.final.is_(False)]
            if most_crashes is not None:
                lost.append(RUNS.c.crashes < most_crashes)
            self._want_again(c, c.scalars(select(RUNS.c.id).where(*lost)).all())

    def again(self, runs: Sequence[int]) -> None:
        """Forget how these runs ended: they are wanted again."""
        with self._begin() as c:
            self._want_again(c, runs)

    def _want_again(self, c: Connection, runs: Sequence[int]) -> None:
        for number in runs:
            values = {"state": WANTED, "owner": None, "outcome": None, "record": None, "row": None, "sent": True}
            c.execute(update(RUNS).where(RUNS.c.id == number).values(values))
            setting = c.scalar(select(RUNS.c.setting).where(RUNS.c.id == number))
            c.execute(update(SETTINGS).where(SETTINGS.c.id == setting).values(stopped=False))
            self._reopen(c, [setting])

    # What runs

    def claim(self, running: Collection[int] | None = None) -> Claim | None:
        """The next run that is wanted, first seeds first. A run whose owner died is wanted again; so is a run of this
        coordinator that is not among those that it is `running`: its claim succeeded, and the answer was lost."""
        with self._begin() as c:
            self._release_dead(c)
            if running is not None:
                mine = (RUNS.c.study == self._study, RUNS.c.state == RUNNING, RUNS.c.owner == self.me)
                lost = update(RUNS).where(*mine, RUNS.c.id.not_in(list(running)))
                c.execute(lost.values(state=WANTED, owner=None))
            columns = (RUNS.c.id, SETTINGS.c.id, SETTINGS.c.key, SETTINGS.c.params, RUNS.c.seed, SETTINGS.c.trial)
            wanted = select(*columns).join(SETTINGS, RUNS.c.setting == SETTINGS.c.id)
            wanted = wanted.where(RUNS.c.study == self._study, RUNS.c.state == WANTED, SETTINGS.c.stopped.is_(False))
            order = wanted.order_by(RUNS.c.place, SETTINGS.c.position).limit(1)
            row = c.execute(order.with_for_update(of=RUNS, skip_locked=True)).first()
            if row is None:
                return None
            number, setting, key, params, seed, trial = row
            c.execute(update(RUNS).where(RUNS.c.id == number).values(state=RUNNING, owner=self.me))
            return Claim(number, setting, key, json.loads(params), seed_of(seed), trial)

    def _release_dead(self, c: Connection) -> None:
        running = (RUNS.c.study == self._study, RUNS.c.state == RUNNING)
        owners = set(c.scalars(select(RUNS.c.owner).where(*running, RUNS.c.owner != self.me).distinct()))
        if dead := owners - set(self._alive(c) if owners else ()):
            c.execute(update(RUNS).where(*running, RUNS.c.owner.in_(dead)).values(state=WANTED, owner=None))

    def propose(self, key: str, params: Params, seeds: Sequence[Seed], trial: int) -> Claim | None:
        """Add a setting that the sampler has proposed, and claim its first run. None if the setting exists."""
        with self._begin() as c:
            if c.scalar(self._settings(SETTINGS.c.id).where(SETTINGS.c.key == key)) is not None:
                return None
            count = c.scalar(self._settings(func.count()))
            values = {"study": self._study, "key": key, "params": json.dumps(params), "position": count, "trial": trial}
            setting = c.execute(insert(SETTINGS).values(values)).inserted_primary_key[0]
            self._want_runs(c, [setting], seeds)
            first = (RUNS.c.setting == setting, RUNS.c.place == 0)
            c.execute(update(RUNS).where(*first).values(state=RUNNING, owner=self.me))
            number = c.scalar(select(RUNS.c.id).where(*first))
            return Claim(number, setting, key, params, seeds[0], trial)

    def set_trial(self, setting: int, trial: int | None, params: Params | None = None) -> None:
        """The setting's number in Optuna, and its parameters if the user's code has added some."""
        more = {} if params is None else {"params": json.dumps(params)}
        with self._begin() as c:
            c.execute(update(SETTINGS).where(SETTINGS.c.id == setting).values(trial=trial, reported=False, **more))

    # How runs ended

    def end(self, run: int, entry: Entry) -> bool:
        """Record how a run ended; a second call changes nothing. False if another coordinator has taken it over."""
        mine = (RUNS.c.id == run, RUNS.c.owner == self.me, RUNS.c.state.in_([RUNNING, ENDED]))
        with self._begin() as c:
            if not c.execute(update(RUNS).where(*mine).values(**_columns(entry))).rowcount:
                return False
            self._stop(c, run, entry)
            return True

    def adopt(self, key: str, seed: Seed, entry: Entry) -> bool:
        """Record the result of a run that MLflow holds and the book does not. False if the book holds one, or if the
        run goes on."""
        with self._begin() as c:
            setting = c.scalar(self._settings(SETTINGS.c.id).where(SETTINGS.c.key == key))
            if setting is None:
                count = c.scalar(self._settings(func.count()))
                values = {"study": self._study, "key": key, "params": None, "position": count}
                setting = c.execute(insert(SETTINGS).values(values)).inserted_primary_key[0]
            where = (RUNS.c.setting == setting, RUNS.c.seed == text_of(seed))
            found = c.execute(select(RUNS.c.id, RUNS.c.state).where(*where)).first()
            if found is not None and found.state != WANTED:
                return False
            if found is None:
                run = {"study": self._study, "setting": setting, "seed": text_of(seed), "place": 0, **_columns(entry)}
                number = c.execute(insert(RUNS).values(run)).inserted_primary_key[0]
            else:
                number = found.id
                c.execute(update(RUNS).where(RUNS.c.id == number).values(**_columns(entry)))
            self._stop(c, number, entry)
            return True

    def _stop(self, c: Connection, run: int, entry: Entry) -> None:
        if entry.outcome in _ENOUGH:
            setting = select(RUNS.c.setting).where(RUNS.c.id == run).scalar_subquery()
            c.execute(update(SETTINGS).where(SETTINGS.c.id == setting).values(stopped=True))
        if entry.crashed:
            c.execute(update(RUNS).where(RUNS.c.id == run).values(crashes=RUNS.c.crashes + 1))

    # What the copies have

    def set_reported(self, setting: int) -> None:
        """Optuna has the setting's result."""
        with self._begin() as c:
            c.execute(update(SETTINGS).where(SETTINGS.c.id == setting).values(reported=True))

    def set_sent(self, run: int, row: str) -> None:
        """MLflow has the run, in this row."""
        with self._begin() as c:
            c.execute(update(RUNS).where(RUNS.c.id == run).values(sent=True, row=row))

    def set_unsent(self, run: int) -> None:
        """MLflow has lost the run."""
        with self._begin() as c:
            c.execute(update(RUNS).where(RUNS.c.id == run).values(sent=False, row=None))


def _columns(entry: Entry) -> dict[str, Any]:
    facts = (entry.record or {}).get("facts", {})
    return {
        "state": ENDED,
        "outcome": entry.outcome,
        "result": json.dumps([list(entry.values), dict(entry.violated)]),
        "final": entry.final,
        "record": None if entry.record is None else json.dumps(entry.record),
        "row": facts.get(ROW),
        "sent": not entry.unsent,
    }
