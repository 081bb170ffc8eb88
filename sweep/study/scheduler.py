"""Which job is next, and when a trial is closed."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

from sweep.study.book import Book, Claim
from sweep.study.entry import Entry
from sweep.study.objectives.base import Replicate, Session
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Params
from sweep.study.trial_store import TrialStore

log = logging.getLogger(__name__)
_MOST_DUPLICATES = 20  # known settings that the sampler proposes in a row, before an untried setting is drawn
_MOST_SETTINGS = 10_000  # a larger space is not searched for an untried setting
_DUPLICATE = "duplicate"


class Scheduler:
    """The order of a study: the runs that the book wants, first seeds first, then what the sampler proposes. `limit` is
    how many settings there are at most if a sampler proposes them, including those of earlier commands."""

    def __init__(self, book: Book, trials: TrialStore, session: Session, found: Enumeration, limit: int):
        self._book = book
        self._trials = trials
        self._session = session
        self._objective = session.objective
        self._space = found.space
        self._settings = found.settings
        self._extend = found.extend
        self._limit = limit
        self._recorded: set[int] = set()  # the runs whose results are in the book
        self._running: set[int] = set()  # the runs that this command has launched

    def enqueue(self) -> None:
        """Write the runs that the command asks for into the book, and make Optuna agree with it. The caller holds the
        study's lock."""
        self._agree()
        seeds = self._objective.first_seeds
        if self._settings is not None:
            wanted = self._objective.in_order(self._settings)
        else:
            known = self._book.settings().values()
            wanted = [params for _, params, _, reported in known if params is not None and not reported]
            if not known:
                wanted = self._objective.first_settings()[: self._limit]
        self._book.want([(self._objective.key(params), params) for params in wanted], seeds)
        self._grant()
        self._close_finished()

    def _agree(self) -> None:
        settings = self._book.settings()
        known = {
            trial: (params or {}, reported) for _, params, trial, reported in settings.values() if trial is not None
        }
        lost = self._trials.agree(known)
        ended = self._book.entries()
        for setting, params, trial, _ in settings.values():
            if trial in lost:
                self._book.set_trial(setting, None)
            if (trial is None or trial in lost) and params is not None and setting in ended:
                self._begin_trial(setting, params)

    def left(self) -> int:
        """Replicates that are still to run, as far as they are known."""
        ahead = 0 if self._settings is not None else max(0, self._limit - self._book.count())
        return self._book.left() + ahead * len(self._objective.first_seeds)

    def next_run(self) -> Replicate | None:
        """Claim the next job. None if no job is left, or if the next one depends on jobs that still run."""
        claim = self._book.claim(self._running)
        if claim is None and self._settings is None:
            with self._trials.lock():
                claim = self._propose()
        if claim is None:
            return None
        params, trial = self._space.exact(claim.params), claim.trial
        if trial is None:
            with self._trials.lock():
                trial, params = self._begin_trial(claim.setting, params)
        self._running.add(claim.run)
        return Replicate(trial, params, claim.seed, claim.run)

    def _begin_trial(self, setting: int, params: Params) -> tuple[int, Params]:
        """The setting's trial in Optuna, and its parameters with those that the user's code has added. The lock is
        held: a command that begins closes trials that the book does not know."""
        known, trial = self._book.trial_of(setting)
        if trial is not None:  # of another coordinator, a moment ago
            return trial, self._space.exact(known or params)
        begun = self._trials.begin(params, self._objective.attributes(params))
        if self._extend is not None:
            self._extend(begun)
            params = {**params, **self._space.exact(begun.params)}
        self._book.set_trial(setting, begun.number, params)
        return begun.number, params

    def record_result(self, replicate: Replicate, entry: Entry) -> None:
        """Record the result of a job, and close its trial if no replicate of it is left. A second call for the same
        result changes nothing."""
        if replicate.run not in self._recorded and not self._book.end(replicate.run, entry):
            log.warning(
                "Trial %d, seed %s: another coordinator has taken this run over, since this one was silent. Its own "
                "result counts, and this one does not.", replicate.trial, replicate.seed,
            )  # fmt: skip
            self._running.discard(replicate.run)
            return
        self._running.discard(replicate.run)
        self._recorded.add(replicate.run)
        self._grant()
        self._close_finished()

    def _grant(self) -> None:
        """Further seeds for the settings in contention, whose trials are then still open."""
        if not self._objective.adaptive:
            return
        open_ = {setting: key for key, (setting, _, _, reported) in self._book.settings().items() if not reported}
        seeds = self._objective.wanted(self._book.entries())
        self._book.grant({open_[setting]: wanted for setting, wanted in seeds.items() if setting in open_})

    def _close_finished(self) -> None:
        """Close each trial whose replicates have all ended."""
        for setting, trial in self._book.closable():
            entries = self._book.entries(setting).get(setting, {})
            if entries:
                self._trials.close_trial(trial, entries)
                self._book.set_reported(setting)

    def _propose(self) -> Claim | None:
        """A new setting. A setting that exists already does not run twice: the sampler proposes another one, and if it
        repeats itself too often, a setting that has not run is drawn."""
        if self._book.count() >= self._limit:
            return None
        seeds = self._objective.first_seeds
        for _ in range(_MOST_DUPLICATES):
            trial = self._trials.ask(self._space.in_order_of_dependence(), self._space.exists)
            if self._extend is not None:
                self._extend(trial)
            params = self._space.exact(trial.params)
            self._trials.set_attributes(trial.number, self._objective.attributes(params))
            claim = self._book.propose(self._objective.key(params), params, seeds, trial.number)
            if claim is not None:
                return claim
            self._trials.set_attributes(trial.number, {_DUPLICATE: True})
            self._trials.fail(trial.number)
        untried = self._untried()
        if not untried:
            log.info("The sampler proposes nothing new: the study ends with %d settings.", self._book.count())
            return None
        params = random.choice(untried)
        self._book.want([(self._objective.key(params), params)], seeds)
        return self._book.claim(self._running)

    def _untried(self) -> list[Params]:
        """The settings that have not run; none if they cannot be listed."""
        if self._extend is not None or not self._space.size_at_most(_MOST_SETTINGS):
            return []
        tried: Mapping[str, object] = self._book.settings()
        return [params for params in self._space.settings() if self._objective.key(params) not in tried]
