"""The study's trials in Optuna: a copy of the book, which samplers, pruners and optuna-dashboard read. A trial is a
setting, with an entry for each of its replicates in its user attributes.

Several coordinators run the replicates of one trial, and one of them closes it. Optuna's `Trial` belongs to the process
that asked for it. So this module writes through the methods of `optuna.storages.BaseStorage`.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from sweep.core import redaction
from sweep.core.errors import UserError, first_line
from sweep.study import coordinator
from sweep.study.entry import Entry, Seed, as_attributes
from sweep.study.search.dimension import Value
from sweep.study.storage import KEY, STORAGE_FAILS, lock_of, opened

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class TrialStore:
    """One Optuna study. `storage` is the value of `hydra.sweeper.storage`. `worst` has the values that a trial gets for
    objectives that were not measured. UserError if the storage does not work, or does not fit."""

    def __init__(
        self,
        *,
        storage: Any,
        name: str | None,
        directions: Sequence[str],
        metric_names: Sequence[str] | None,
        worst: Sequence[float],
        space: Mapping[str, BaseDistribution],
        sampler: optuna.samplers.BaseSampler | None = None,
        others: Sequence[str] = (),
    ):
        """`others` are the other coordinators of the study."""
        self._others = others
        self._directions = list(directions)
        self._worst = list(worst)
        self._sampler = sampler
        self.lock = coordinator.StudyLock(lock_of(storage), name or "")
        try:
            with self.lock():
                self._storage = opened(storage)
                self.study = self._create(name)
                self._require_same_objectives()
                self.space = self._widened(space)
                if metric_names is not None:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                        self.study.set_metric_names(list(metric_names))
        except (SQLAlchemyError, ValueError, ImportError, RuntimeError) as error:
            raise UserError(redaction.text(f"{KEY} = {storage} does not work: {first_line(error)}")) from error

    def _create(self, name: str | None) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=self._directions,
            sampler=self._sampler,
            load_if_exists=True,
        )

    def _require_same_objectives(self) -> None:
        there = [direction.name.lower() for direction in self.study.directions]
        if there != self._directions:
            raise UserError(
                f"study {self.study.study_name} exists in hydra.sweeper.storage with the objectives "
                f"{', '.join(there)}, not {', '.join(self._directions)}; choose another study name"
            )

    def _widened(self, space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        """The space with the choices of this command and of the study's earlier commands. Optuna does not allow a
        parameter to get further choices. So if there are new ones, the study is created again with its old trials.
        UserError if a key was searched in another way, or if another coordinator works on the study."""
        trials = self.all()
        old: dict[str, BaseDistribution] = {k: d for trial in trials for k, d in trial.distributions.items()}
        wanted = dict(space)
        grown = False
        for key in sorted(old.keys() & space.keys()):
            before, now = old[key], space[key]
            if type(now) is not type(before) or getattr(now, "log", None) != getattr(before, "log", None):
                raise UserError(
                    f"{key} was searched as {before} in study {self.study.study_name}; as {now} it would be "
                    "another study: choose another study name"
                )
            if isinstance(now, CategoricalDistribution) and now != before:
                wanted[key] = CategoricalDistribution(tuple(dict.fromkeys([*before.choices, *now.choices])))
                grown = grown or wanted[key] != before
        if grown:
            self._remake(trials, {**old, **wanted})
        return wanted

    def _remake(self, trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> None:
        """Create the study again, each trial under its old number."""
        if self._others:
            raise UserError(
                f"study {self.study.study_name} is being run by {', '.join(self._others)}: new choices can be added "
                "after that has ended"
            )
        name, attributes = self.study.study_name, self.study.user_attrs
        optuna.delete_study(study_name=name, storage=self._storage)
        self.study = self._create(name)
        for key, value in attributes.items():
            self.study.set_user_attr(key, value)
        for trial in trials:
            trial.distributions = {key: space[key] for key in trial.distributions}
            unfinished = create_trial(state=TrialState.FAIL, params=trial.params, distributions=trial.distributions)
            self.study.add_trial(trial if trial.state.is_finished() else unfinished)

    # Trials

    def all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def ask(self, order: Iterable[str], exists: Callable[[str, Mapping[str, Value]], bool]) -> Trial:
        """The trial that the sampler proposes. Keys are suggested in `order`, and only if they exist, given the values
        of earlier keys. UserError if the sampler raises an exception."""
        number = None
        try:
            trial = self.study.ask()
            number = trial.number
            for key in order:
                if exists(key, trial.params):
                    suggest(trial, key, self.space[key])
        except STORAGE_FAILS:
            raise
        except Exception as error:
            if number is not None:
                self.fail(number)
            raise UserError(
                f"hydra.sweeper.sampler = {type(self.study.sampler).__name__} raised an error in its proposal of trial "
                f"{'' if number is None else number}: {type(error).__name__}: {first_line(error)}\n"
                "Fix it, or choose another sampler; the same command continues with the trials that exist."
            ) from error
        return trial

    def begin(self, params: Mapping[str, Value], attributes: Mapping[str, Any]) -> Trial:
        """A new trial with these parameters, which runs. It is created whole: no crash leaves one without values."""
        space = {key: self.space[key] for key in params if key in self.space}
        known = {key: params[key] for key in space}
        template = create_trial(
            state=TrialState.RUNNING, params=known, distributions=space, user_attrs=dict(attributes)
        )
        return Trial(self.study, self._storage.create_new_trial(self._study_id, template))

    def agree(self, known: Mapping[int, tuple[Mapping[str, Value], bool]]) -> set[int]:
        """Make Optuna agree with the book. `known` has the parameters of the book's trials, and whether Optuna has
        their results, by number. A trial that runs and is not in the book is closed as failed: its coordinator died
        before it wrote the book. Returns the trials of the book that are not usable here."""
        trials = {trial.number: trial for trial in self.all()}
        for number, trial in trials.items():
            if trial.state is TrialState.RUNNING and number not in known:
                self.fail(number)
        return {
            number
            for number, (params, reported) in known.items()
            if number not in trials
            or not _agree(trials[number].params, params)
            or (not reported and trials[number].state is TrialState.FAIL)
        }

    def set_attributes(self, number: int, attributes: Mapping[str, Any]) -> None:
        trial_id = self._id(number)
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)

    def report(self, number: int, step: int, score: float) -> None:
        """Set the score of a trial at an optimizer step, for Optuna's pruners."""
        self._storage.set_trial_intermediate_value(self._id(number), step, score)

    def close_trial(self, number: int, entries: Mapping[Seed, Entry]) -> None:
        """Close a trial with the means over its `ok` replicates. A trial that is closed already stays as it is.

        A replicate that violated a constraint (out of memory, over the budget, diverged, pruned) is a result for the
        setting. The trial is then COMPLETE with a violated constraint, since samplers ignore FAIL and would propose the
        same setting again. `failed` and `killed` are not results for the setting: FAIL.
        """
        with self._unless_closed(number):
            self._close(number, entries)

    def _close(self, number: int, entries: Mapping[Seed, Entry]) -> None:
        self.set_attributes(number, as_attributes(entries))
        ended = list(entries.values())
        constraints: dict[str, float] = {}
        for entry in ended:
            for name, excess in entry.violated.items():
                constraints[name] = max(excess, constraints.get(name, -math.inf))
        # Optuna's `create_trial` gives the keys under which `Trial.set_constraint` stores constraints.
        stored = create_trial(state=TrialState.RUNNING, constraints=constraints).system_attrs
        for key, value in stored.items():
            self._storage.set_trial_system_attr(self._id(number), key, value)
        ok = [entry for entry in ended if entry.outcome == "ok" and None not in entry.values]
        counted = ok or [entry for entry in ended if any(excess > 0 for excess in entry.violated.values())]
        if not counted:
            self.fail(number)
            return
        values = []
        for position, worst in enumerate(self._worst):
            known = [e.values[position] for e in counted if len(e.values) > position and e.values[position] is not None]
            values.append(sum(known) / len(known) if known else worst)
        self.study.tell(number, values)

    @contextmanager
    def _unless_closed(self, number: int) -> Iterator[None]:
        """Ignore Optuna's error about a trial that another coordinator has closed."""
        try:
            yield
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if not self._storage.get_trial(self._id(number)).state.is_finished():
                raise

    def best(self) -> list[FrozenTrial]:
        """The best trial, or the Pareto front, of the trials that are complete and violate no constraint. Empty if
        nothing was measured."""
        if not any(trial.state is TrialState.COMPLETE for trial in self.all()):
            return []
        try:
            found = self.study.best_trials if len(self._directions) > 1 else [self.study.best_trial]
        except ValueError:  # none is feasible
            return []
        return [trial for trial in found if all(map(math.isfinite, trial.values))]  # others returned no number

    def fail(self, number: int) -> None:
        with self._unless_closed(number):
            self.study.tell(number, state=TrialState.FAIL)

    @property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(self.study.study_name)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _agree(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether no parameter differs. A number of a range may differ by its last digit."""
    return all(
        math.isclose(value, there[key]) if isinstance(value, float) else value == there[key]
        for key, value in here.items()
        if key in there
    )


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Value:
    """Suggest the value of one key, by the method of Optuna for its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    whole = isinstance(distribution, optuna.distributions.IntDistribution)
    number = trial.suggest_int if whole else trial.suggest_float
    return number(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
