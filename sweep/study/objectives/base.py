"""What the engine needs to know of the application whose jobs it launches: our training runs, or any Hydra application
that returns numbers. Each has an objective, which is complete before the study opens, and a session while it is open.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.utils import JobReturn

from sweep.study.entry import Entry, Seed
from sweep.study.search.dimension import Value
from sweep.study.search.space import Params

if TYPE_CHECKING:
    from sweep.study.book import Book
    from sweep.study.trial_store import TrialStore


class Replicate(NamedTuple):
    """One job of the study: a trial's setting under one seed."""

    trial: int
    params: Mapping[str, Value]
    seed: Seed
    run: int = 0  # in the book


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What a study measures, and which jobs it launches.

    `directions` ("maximize" or "minimize"), `metric_names` and `worst` have one element per objective. `worst` is the
    value that Optuna gets for an objective that was not measured. `seeds` are the replicates of each setting, at most.
    """

    directions: Sequence[str]
    worst: Sequence[float]
    metric_names: Sequence[str] | None = None
    study_name: str | None = None
    seeds: tuple[Seed, ...] = (None,)
    devices_per_run: int = 1

    def prepare(self) -> None:  # noqa: B027  a function needs nothing
        """Do what may take long, before the study is locked."""

    @abstractmethod
    def open(self, book: Book, trials: TrialStore) -> Session:
        """Open the study in the book, and create what it needs before its first job. The caller holds the study's
        lock."""

    def key(self, params: Params) -> str:
        """What identifies a setting in the book."""
        return json.dumps(dict(params), sort_keys=True)

    @property
    def adaptive(self) -> bool:
        """Whether some settings get further replicates than `first_seeds`."""
        return False

    @property
    def first_seeds(self) -> tuple[Seed, ...]:
        """The replicates that each setting gets at first."""
        return self.seeds

    @abstractmethod
    def attributes(self, params: Params) -> dict[str, Any]:
        """Attributes of a trial, for a person who reads the study in Optuna."""

    @abstractmethod
    def overrides(self, replicate: Replicate) -> list[str]:
        """The complete overrides of a job."""

    def first_settings(self) -> list[Params]:
        """The settings that a search begins with."""
        return []

    def in_order(self, settings: Sequence[Params]) -> list[Params]:
        """The settings of a finite study in the order in which they run."""
        return list(settings)

    def wanted(self, entries: Mapping[int, Mapping[Seed, Entry]]) -> Mapping[int, Sequence[Seed]]:
        """Setting → the replicates that it gets for now, given those that have ended, if the study is `adaptive`."""
        return {}


class Session(ABC):
    """A study that is open: the results of its jobs, and what follows from them."""

    def __init__(self, objective: Objective):
        self.objective = objective

    @abstractmethod
    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        """The result of a job. Raises an exception if it is not the job's own fault."""

    def announce(self, left: int, places: str) -> None:  # noqa: B027  a function needs no message
        """Log what the command launches: `left` jobs, on `places`."""

    def conclude(self, arguments: Sequence[str]) -> None:  # noqa: B027  nor here
        """Log the next command for the user, given the arguments of this one."""

    @abstractmethod
    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """Whether no further job starts, because too many of at least `at_least` jobs have failed."""

    @abstractmethod
    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raise an exception at the end of the command if jobs failed and the user must know."""

    def send(self) -> bool:
        """Write to MLflow what it lacks. False if something could not be written."""
        return True

    def close(self, finished: bool) -> None:  # noqa: B027  a function leaves nothing open
        """The study ends and no other coordinator works on it. `finished` is False after an exception."""
