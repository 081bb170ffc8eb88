"""The study's trials in Optuna, as a book that several coordinators write in: what is proposed, who runs which
replicate, and what came of it.

A trial is a setting. Each of its replicates has an entry in the trial's user attributes, under `run:<seed>`: who has
claimed it, and how it ended. Nothing here knows what a run is.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from sweep.core import process_identity, redaction
from sweep.core.errors import UserError, first_line
from sweep.study import coordinator
from sweep.study.search.dimension import Value

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
_BEAT = "heartbeat:"
_RUN = "run:"
STORAGE_FAILS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
Seed = int | None  # None where an application knows no seeds


class Entry(NamedTuple):
    """One replicate: by whom it is run, or how it ended. `values` has None for what was not measured; `violated` names
    constraints that the run broke, with the measure of it."""

    claimed_by: str | None = None
    outcome: str | None = None
    values: tuple[float | None, ...] = ()
    violated: Mapping[str, float] = {}
    final: bool = True

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    def as_attribute(self) -> dict[str, Any]:
        """Without what is as it mostly is: a person reads it in optuna-dashboard."""
        return {key: value for key, value in self._asdict().items() if value != Entry._field_defaults[key]}


class TrialStore:
    """One Optuna study.

    `worst` are values that a trial is told for objectives that were not measured.

    Raises:
        UserError: where the storage does not work, or the study there has other objectives.
    """

    def __init__(
        self,
        *,
        storage: str | None,
        name: str | None,
        directions: Sequence[str],
        metric_names: Sequence[str] | None,
        worst: Sequence[float],
        space: Mapping[str, BaseDistribution],
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ):
        self._storage: Any = storage
        self._directions = list(directions)
        self._worst = list(worst)
        self._sampler = sampler
        self._pruner = pruner
        self.me = process_identity.identity()
        self.lock = coordinator.StudyLock(storage, name or "")
        try:
            with self.lock():
                if storage:
                    self._storage = optuna.storages.RDBStorage(storage, coordinator.connecting(storage))
                self.study = self._create(name)
                self._same_objectives()
                self.space = self._widened(space)
                if metric_names is not None:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                        self.study.set_metric_names(list(metric_names))
        except (SQLAlchemyError, ValueError, ImportError, RuntimeError) as error:
            raise UserError(
                redaction.text(f"hydra.sweeper.storage = {storage} does not work: {first_line(error)}")
            ) from error

    def _create(self, name: str | None) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=self._directions,
            sampler=self._sampler,
            pruner=self._pruner,
            load_if_exists=True,
        )

    def _same_objectives(self) -> None:
        there = [direction.name.lower() for direction in self.study.directions]
        if there != self._directions:
            raise UserError(
                f"study {self.study.study_name} exists in hydra.sweeper.storage with the objectives "
                f"{', '.join(there)}, not {', '.join(self._directions)}; choose another study name"
            )

    def _widened(self, space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        """Choices are those of this command and of the study's earlier ones. Optuna holds a parameter's choices fixed,
        so where they have grown, the study is made anew with the old trials in it.

        Raises:
            UserError: where a key was searched in another way, or other coordinators are at work on the study.
        """
        trials = self.all()
        old: dict[str, BaseDistribution] = {k: d for trial in trials for k, d in trial.distributions.items()}
        wanted = dict(space)
        grown = False
        for key, before in old.items():
            now = wanted.get(key)
            if now is None or now == before:
                continue
            if not (isinstance(now, CategoricalDistribution) and isinstance(before, CategoricalDistribution)):
                if type(now) is not type(before) or _is_log(now) != _is_log(before):
                    raise UserError(
                        f"{key} was searched as {before} in study {self.study.study_name}; as {now} it would be "
                        "another study: choose another study name"
                    )
                continue
            wanted[key] = CategoricalDistribution(tuple(dict.fromkeys([*before.choices, *now.choices])))
            grown = grown or wanted[key] != before
        if grown:
            self._remake(trials, {**old, **wanted})
        return wanted

    def _remake(self, trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> None:
        others = self.others()
        if others:
            raise UserError(
                f"study {self.study.study_name} is being run by {', '.join(others)}: new choices can be added once "
                "that has ended"
            )
        name, attributes = self.study.study_name, self.study.user_attrs
        optuna.delete_study(study_name=name, storage=self._storage)
        self.study = self._create(name)
        for key, value in attributes.items():
            self.study.set_user_attr(key, value)
        for trial in trials:
            trial.distributions = {key: space[key] for key in trial.distributions}
            if trial.state.is_finished():
                self.study.add_trial(trial)

    # Coordinators

    def heartbeat(self) -> None:
        """Say that this coordinator lives."""
        self.study.set_user_attr(f"{_BEAT}{self.me}", time.time())

    def deregister(self) -> None:
        """Say that this coordinator has ended in good order."""
        self.study.set_user_attr(f"{_BEAT}{self.me}", 0.0)

    def others(self) -> list[str]:
        """The other coordinators that are alive."""
        beats = self._beats()
        named = [name for name, beat in beats.items() if name != self.me and beat > 0]
        return [name for name in named if process_identity.is_alive(name, beats)]

    def is_alive(self, name: str) -> bool:
        return name == self.me or process_identity.is_alive(name, self._beats())

    def _beats(self) -> dict[str, float]:
        attributes = self.study.user_attrs
        return {key.removeprefix(_BEAT): beat for key, beat in attributes.items() if key.startswith(_BEAT)}

    # Trials

    def all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def enqueue(self, params: Mapping[str, Value], attributes: Mapping[str, Any], done: Mapping[Seed, Entry]) -> None:
        """A trial of these parameters, to be asked for later; `done` are replicates that are there already."""
        entries = {_key(seed): entry.as_attribute() for seed, entry in done.items()}
        self.study.enqueue_trial(dict(params), user_attrs={**attributes, **entries})

    def ask(self, order: Iterable[str], exists: Callable[[str, Mapping[str, Value]], bool]) -> Trial:
        """The next trial: one that waits, or one that the sampler proposes. Keys are suggested in `order`, those only
        that exist under the values before them.

        Raises:
            UserError: where the sampler raises.
        """
        number = len(self.all())
        try:
            trial = self.study.ask()
            number = trial.number
            for key in order:
                if exists(key, trial.params):
                    suggest(trial, key, self.space[key])
        except STORAGE_FAILS:
            raise
        except Exception as error:
            if number < len(self.all()):
                self.fail(number)
            raise UserError(
                f"hydra.sweeper.sampler = {type(self.study.sampler).__name__} raised as it proposed trial {number}: "
                f"{type(error).__name__}: {first_line(error)}\n"
                "Mend it, or choose another; the same command goes on with the trials that are there."
            ) from error
        return trial

    @staticmethod
    def entries(trial: FrozenTrial) -> dict[Seed, Entry]:
        """A trial's replicates."""
        found: dict[Seed, Entry] = {}
        for key, value in trial.user_attrs.items():
            if key.startswith(_RUN):
                seed = key.removeprefix(_RUN)
                found[None if seed == "" else int(seed)] = Entry(**{**value, "values": tuple(value.get("values", ()))})
        return found

    def set_replicate(self, number: int, seed: Seed, entry: Entry) -> None:
        self._handle(number).set_user_attr(_key(seed), entry.as_attribute())

    def set_attributes(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Attributes that a person reads in optuna-dashboard."""
        handle = self._handle(number)
        for key, value in attributes.items():
            handle.set_user_attr(key, value)

    def tell(self, number: int, entries: Iterable[Entry]) -> None:
        """Close a trial with the means over its `ok` replicates.

        A replicate that broke a constraint (out of memory, over the budget, diverged, pruned) says much about the
        setting: it is told as COMPLETE with the constraint violated, since samplers do not see FAIL and would propose
        the same again. `failed` and `killed` say nothing: FAIL.
        """
        ended = [entry for entry in entries if entry.ended]
        handle = self._handle(number)
        broken: dict[str, float] = {}
        for entry in ended:
            for name, excess in entry.violated.items():
                broken[name] = max(excess, broken.get(name, -math.inf))
        for name, excess in broken.items():
            handle.set_constraint(name, excess)
        ok = [entry for entry in ended if entry.outcome == "ok" and None not in entry.values]
        told = ok or [entry for entry in ended if any(excess > 0 for excess in entry.violated.values())]
        if not told:
            self.study.tell(number, state=TrialState.FAIL)
            return
        values = []
        for position, worst in enumerate(self._worst):
            known = [e.values[position] for e in told if len(e.values) > position and e.values[position] is not None]
            values.append(sum(known) / len(known) if known else worst)
        self.study.tell(number, values)

    def best(self) -> list[FrozenTrial]:
        """The best trial, or the Pareto front; empty where none is complete. Trials that violate a constraint are left
        out."""
        if not any(trial.state is TrialState.COMPLETE for trial in self.all()):
            return []
        if len(self._directions) > 1:
            return list(self.study.best_trials)
        try:
            return [self.study.best_trial]
        except ValueError:  # none is feasible
            return []

    def fail(self, number: int) -> None:
        self.study.tell(number, state=TrialState.FAIL)

    def _handle(self, number: int) -> Trial:
        trial = self.all()[number]
        return Trial(self.study, trial._trial_id)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Value:
    """The value of one key, by Optuna's word for its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _key(seed: Seed) -> str:
    return f"{_RUN}{'' if seed is None else seed}"


def _is_log(distribution: BaseDistribution) -> bool:
    return bool(getattr(distribution, "log", False))
