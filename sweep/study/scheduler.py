"""Which job is next, and when a trial is closed."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hydra.core.utils import JobReturn
from optuna.trial import FrozenTrial, TrialState

from sweep.study.entry import Entry, Seed, entries_of
from sweep.study.objectives.base import Replicate, Session
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Params
from sweep.study.trial_store import TrialStore, params_of

log = logging.getLogger(__name__)
_MOST_DUPLICATES = 20  # known settings that the sampler proposes in a row, before an untried setting is drawn
_MOST_SETTINGS = 10_000  # a larger space is not searched for an untried setting
_DUPLICATE = "duplicate_of"
_ENOUGH = ("oom", "pruned")  # outcomes after which a setting gets no further replicate


class Scheduler:
    """The order of a study: trials that wait, then further replicates, then what the sampler proposes. `limit` is how
    many trials the sampler proposes at most, including those of earlier commands and of other coordinators."""

    def __init__(self, trials: TrialStore, session: Session, found: Enumeration, limit: int):
        self._trials = trials
        self._session = session
        self._objective = session.objective
        self._space = found.space
        self._settings = found.settings
        self._extend = found.extend
        self._limit = limit
        self._first = len(trials.all())

    def enqueue(self) -> None:
        """Add the trials that the command asks for and that Optuna or the session do not hold yet."""
        unfinished = [trial for trial in self._trials.all() if not trial.state.is_finished()]
        for trial in unfinished:
            for seed, entry in entries_of(trial.user_attrs).items():
                if entry.ended and not entry.final:  # failed or killed: run again
                    self._trials.set_replicate(trial.number, seed, Entry())
        if self._settings is None:
            if not self._trials.all():
                for params in self._objective.first_settings()[: self._limit]:
                    self._trials.enqueue(params, {}, {})
            return
        pending = [self._params_of(trial) for trial in unfinished]
        complete = [self._params_of(trial) for trial in self._trials.all() if _is_ok(trial)]
        for params in self._objective.in_order(self._settings):
            done = self._session.done(params)
            is_done = not _left_of(self._objective.seeds, done) if self._session.knows_all_runs else params in complete
            if params not in pending and not is_done:
                self._trials.enqueue(params, self._objective.attributes(params), done)

    def left(self) -> int:
        """Replicates that are still to run, as far as they are known."""
        seeds = self._objective.seeds
        trials = [trial for trial in self._trials.all() if _DUPLICATE not in trial.user_attrs]
        begun = sum(
            len(_left_of(seeds, entries_of(trial.user_attrs))) for trial in trials if not trial.state.is_finished()
        )
        ahead = 0 if self._settings is not None else max(0, self._limit - self._counted(trials))
        return begun + ahead * len(seeds)

    def next_run(self) -> Replicate | None:
        """Claim the next job. None if no job is left, or if the next one depends on jobs that still run."""
        with self._trials.lock():
            self._close_finished_trials()
            trials = self._trials.all()
            if any(trial.state is TrialState.WAITING for trial in trials):
                return self._claim_first(*self._ask())
            replicate = self._another_replicate(trials)
            if replicate is not None or self._settings is not None:
                return replicate
            return self._propose()

    def record_result(self, replicate: Replicate, returned: JobReturn) -> None:
        """Record the result of a job, and close its trial if no replicate of it is left."""
        entry = self._session.entry(replicate, returned)
        with self._trials.lock():
            self._trials.set_replicate(replicate.trial, replicate.seed, entry)
            self._close_finished_trials()

    def _close_finished_trials(self) -> None:
        """Close each trial whose replicates have all ended."""
        for trial, entries, seeds in self._begun(self._trials.all()):
            running = any(not entry.ended and self._is_taken(entry) for entry in entries.values())
            if entries and not running and not _left_of(seeds, entries):
                self._trials.close_trial(trial.number, entries.values())

    def _begun(
        self, trials: Iterable[FrozenTrial]
    ) -> Iterator[tuple[FrozenTrial, Mapping[Seed, Entry], Sequence[Seed]]]:
        """The trials that run, each with its replicates and with the seeds that it gets for now."""
        wanted = self._objective.wanted(self._trials) or {}
        for trial in trials:
            if trial.state is TrialState.RUNNING:
                yield trial, entries_of(trial.user_attrs), wanted.get(trial.number, self._objective.seeds)

    def _is_taken(self, entry: Entry) -> bool:
        """Whether a replicate has ended, or a coordinator that is alive runs it."""
        return entry.ended or (entry.claimed_by is not None and self._trials.is_alive(entry.claimed_by))

    def _ask(self) -> tuple[int, Params]:
        trial = self._trials.ask(self._space.in_order_of_dependence(), self._space.exists)
        if self._extend is not None:
            self._extend(trial)
        return trial.number, self._space.exact(trial.params)

    def _claim_first(self, number: int, params: Params) -> Replicate:
        self._trials.set_attributes(number, self._objective.attributes(params))
        entries = entries_of(self._trials.all()[number].user_attrs)
        return self._claim(number, params, _left_of(self._objective.seeds, entries)[0])

    def _claim(self, number: int, params: Params, seed: Seed) -> Replicate:
        self._trials.set_replicate(number, seed, Entry(claimed_by=self._trials.me))
        return Replicate(number, params, seed)

    def _another_replicate(self, trials: Iterable[FrozenTrial]) -> Replicate | None:
        """A replicate of the running trial that has the fewest: a study that stops half-way is then readable. Trials of
        coordinators that have died are included."""
        candidates = []
        for trial, entries, seeds in self._begun(trials):
            taken = {seed for seed, entry in entries.items() if self._is_taken(entry)}
            candidates += [
                (len(taken), trial.number, seed, self._space.exact(trial.params))
                for seed in _left_of(seeds, entries)
                if seed not in taken
            ]
        if not candidates:
            return None
        _, number, seed, params = min(candidates, key=lambda candidate: candidate[:2])
        return self._claim(number, params, seed)

    def _counted(self, trials: Iterable[FrozenTrial]) -> int:
        """How many trials count towards the limit. Failed trials of this command count, or a study whose every trial
        fails would never end. Failed trials of earlier commands do not: they run again."""
        return sum(
            _DUPLICATE not in t.user_attrs and (t.state is not TrialState.FAIL or t.number >= self._first)
            for t in trials
        )

    def _propose(self) -> Replicate | None:
        """A new setting. A setting that exists already does not run twice: the sampler proposes another one, and if it
        repeats itself too often, a setting that has not run is drawn."""
        if self._counted(self._trials.all()) >= self._limit:
            return None
        for _ in range(_MOST_DUPLICATES):
            number, params = self._ask()
            tried = [trial for trial in self._trials.all() if trial.state is not TrialState.FAIL]
            twin = next((t for t in tried if t.number != number and self._params_of(t) == params), None)
            if twin is None:
                return self._claim_first(number, params)
            self._trials.set_attributes(number, {_DUPLICATE: twin.number})
            self._trials.fail(number)
        untried = self._untried()
        if not untried:
            log.info(
                "The sampler proposes nothing new: the study ends with %d trials.", self._counted(self._trials.all())
            )
            return None
        self._trials.enqueue(random.choice(untried), {}, {})
        return self._claim_first(*self._ask())

    def _params_of(self, trial: FrozenTrial) -> Params:
        return self._space.exact(params_of(trial))

    def _untried(self) -> list[Params]:
        """The settings that have not run; none if they cannot be listed."""
        if self._extend is not None or not self._space.size_at_most(_MOST_SETTINGS):
            return []
        tried = [self._params_of(trial) for trial in self._trials.all() if trial.state is not TrialState.FAIL]
        return [params for params in self._space.settings() if params not in tried]


def _left_of(seeds: Iterable[Seed], entries: Mapping[Seed, Entry]) -> list[Seed]:
    """The replicates that have not ended. Empty if one has an outcome in _ENOUGH: memory does not depend on the seed,
    and a setting that is clearly beaten is not worth another run."""
    if any(entry.outcome in _ENOUGH for entry in entries.values()):
        return []
    return [seed for seed in seeds if seed not in entries or not entries[seed].ended]


def _is_ok(trial: FrozenTrial) -> bool:
    entries = entries_of(trial.user_attrs)
    return bool(entries) and all(entry.outcome == "ok" for entry in entries.values())
