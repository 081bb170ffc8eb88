"""Which job is next, and what is told of those that have ended."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from optuna.trial import FrozenTrial, Trial, TrialState

from sweep.study.objectives.base import Objective, Replicate
from sweep.study.search.space import Params, Space
from sweep.study.trial_store import Entry, Seed, TrialStore

log = logging.getLogger(__name__)
_SAME_AGAIN = 20  # proposals that were there already, in a row, before an untried setting is taken instead
_UNTRIED_AMONG = 10_000  # settings, beyond which a finite space is not searched for one
_DUPLICATE = "duplicate_of"
_ENOUGH = ("oom", "pruned")  # outcomes after which a setting gets no further replicate


class Scheduler:
    """The order of a study: trials that wait, then further replicates, then what the sampler proposes.

    `settings` are all there are, where the study runs them all; else the sampler proposes up to `limit` trials, those
    of earlier commands and of other coordinators counted. `extend(trial)` suggests further keys by code.
    """

    def __init__(
        self,
        trials: TrialStore,
        objective: Objective,
        space: Space,
        settings: Sequence[Params] | None,
        limit: int,
        extend: Callable[[Trial], None] | None,
    ):
        self._trials = trials
        self._objective = objective
        self._space = space
        self._settings = settings
        self._limit = limit
        self._extend = extend
        self._first = len(trials.all())

    def enqueue(self) -> None:
        """Bring Optuna up to what the command asks for and the application's own ledger knows."""
        pending = []
        for trial in self._trials.all():
            if trial.state.is_finished():
                continue
            pending.append(params_of(trial))
            for seed, entry in self._trials.entries(trial).items():
                if entry.ended and not entry.final:  # failed or killed: worth another try
                    self._trials.set_replicate(trial.number, seed, Entry())
        if self._settings is None:
            if not self._trials.all():
                for params in self._objective.plain_settings(self._space):
                    self._trials.enqueue(params, {}, {})
            return
        complete = [params_of(trial) for trial in self._trials.all() if self._is_ok(trial)]
        for params in self._objective.order(self._settings):
            done = self._objective.done(params)
            there = not _left_of(self._objective.seeds(), done) if self._objective.keeps_ledger else params in complete
            if params not in pending and not there:
                self._trials.enqueue(params, self._objective.attributes(params), done)

    def _is_ok(self, trial: FrozenTrial) -> bool:
        entries = self._trials.entries(trial)
        return bool(entries) and all(entry.outcome == "ok" for entry in entries.values())

    def left(self) -> int:
        """Replicates that are still to be run, as far as it is known."""
        seeds = self._objective.seeds()
        trials = [trial for trial in self._trials.all() if _DUPLICATE not in trial.user_attrs]
        begun = sum(
            len(_left_of(seeds, self._trials.entries(trial))) for trial in trials if not trial.state.is_finished()
        )
        ahead = 0 if self._settings is not None else max(0, self._limit - self._counted(trials))
        return begun + ahead * len(seeds)

    def next_run(self) -> Replicate | None:
        """Claim the next job; None where there is none, or not before others have ended."""
        with self._trials.lock():
            self._close_finished_trials()
            trials = self._trials.all()
            if any(trial.state is TrialState.WAITING for trial in trials):
                return self._claim_first(self._ask())
            replicate = self._another_replicate(trials)
            if replicate is not None or self._settings is not None:
                return replicate
            return self._propose()

    def record_result(self, replicate: Replicate, returned: JobReturn) -> Entry:
        """Write down what came of a job, and close its trial where nothing is left of it."""
        entry = self._objective.entry(replicate, returned)
        with self._trials.lock():
            self._trials.set_replicate(replicate.trial, replicate.seed, entry)
            self._close_finished_trials()
        return entry

    def _close_finished_trials(self) -> None:
        """Close each trial that has got all that it is to get."""
        wanted = self._objective.wanted(self._trials)
        for trial in self._trials.all():
            if trial.state is not TrialState.RUNNING:
                continue
            entries = self._trials.entries(trial)
            seeds = self._objective.seeds() if wanted is None else wanted.get(trial.number, self._objective.seeds())
            running = any(
                not e.ended and e.claimed_by is not None and self._trials.is_alive(e.claimed_by)
                for e in entries.values()
            )
            if entries and not running and not _left_of(seeds, entries):
                self._trials.tell(trial.number, entries.values())

    def _ask(self) -> tuple[int, Params]:
        trial = self._trials.ask(self._space.in_order_of_dependence(), self._space.exists)
        if self._extend is not None:
            self._extend(trial)
        return trial.number, dict(trial.params)

    def _claim_first(self, asked: tuple[int, Params]) -> Replicate:
        number, params = asked
        self._trials.set_attributes(number, self._objective.attributes(params))
        entries = self._trials.entries(self._trials.all()[number])
        return self._claim(number, params, _left_of(self._objective.seeds(), entries)[0])

    def _claim(self, number: int, params: Params, seed: Seed) -> Replicate:
        self._trials.set_replicate(number, seed, Entry(claimed_by=self._trials.me))
        return Replicate(number, params, seed)

    def _another_replicate(self, trials: Iterable[FrozenTrial]) -> Replicate | None:
        """Of the trials that run, the replicate whose setting has the fewest: a study that is stopped half-way can be
        read. Those of coordinators that have died are among them."""
        wanted = self._objective.wanted(self._trials)
        candidates = []
        for trial in trials:
            if trial.state is not TrialState.RUNNING:
                continue
            entries = self._trials.entries(trial)
            seeds = self._objective.seeds() if wanted is None else wanted.get(trial.number, self._objective.seeds())
            taken = {
                s
                for s, e in entries.items()
                if e.ended or (e.claimed_by is not None and self._trials.is_alive(e.claimed_by))
            }
            open_seeds = [seed for seed in _left_of(seeds, entries) if seed not in taken]
            if open_seeds:
                candidates.append((len(taken), trial.number, open_seeds[0], dict(trial.params)))
        if not candidates:
            return None
        _, number, seed, params = min(candidates, key=lambda candidate: candidate[:2])
        return self._claim(number, params, seed)

    def _counted(self, trials: Iterable[FrozenTrial]) -> int:
        """Trials of the study that count towards its number: failed ones of this command do, or a study whose every
        trial fails would never end; those of earlier commands are worth another try."""
        return sum(
            _DUPLICATE not in t.user_attrs and (t.state is not TrialState.FAIL or t.number >= self._first)
            for t in trials
        )

    def _propose(self) -> Replicate | None:
        """A setting that was not there yet. An identical one is not paid for twice: the sampler is asked again, and
        where it insists, an untried one is drawn."""
        if self._counted(self._trials.all()) >= self._limit:
            return None
        for _ in range(_SAME_AGAIN):
            number, params = self._ask()
            twin = next((t for t in self._trials.all() if t.number != number and _same(t, params)), None)
            if twin is None:
                return self._claim_first((number, params))
            self._trials.set_attributes(number, {_DUPLICATE: twin.number})
            self._trials.fail(number)
        untried = self._untried()
        if untried is None:
            log.info(
                "The sampler proposes nothing new: the study ends with %d trials.", self._counted(self._trials.all())
            )
            return None
        self._trials.enqueue(untried, {}, {})
        return self._claim_first(self._ask())

    def _untried(self) -> Params | None:
        if not self._space.finite or self._extend is not None or not self._space.size_at_most(_UNTRIED_AMONG):
            return None
        tried = [params_of(trial) for trial in self._trials.all() if trial.state is not TrialState.FAIL]
        untried = [params for params in self._space.settings() if params not in tried]
        return random.choice(untried) if untried else None


def _left_of(seeds: Iterable[Seed], entries: Mapping[Seed, Entry]) -> list[Seed]:
    """The replicates that have not ended. None where one has told enough: memory does not hang on the seed, and a
    setting that is clearly beaten is not worth another run."""
    if any(entry.outcome in _ENOUGH for entry in entries.values()):
        return []
    return [seed for seed in seeds if seed not in entries or not entries[seed].ended]


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, those of one that waits included."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def _same(trial: FrozenTrial, params: Params) -> bool:
    return trial.state is not TrialState.FAIL and params_of(trial) == params
