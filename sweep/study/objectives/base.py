"""What the engine needs to know of the application whose jobs it launches: our training runs, or any Hydra application
that returns numbers. Each has an objective, which is complete before the study opens, and a session while it is open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.utils import JobReturn

from sweep.study.entry import Entry, Seed
from sweep.study.search.dimension import Value
from sweep.study.search.space import Params

if TYPE_CHECKING:
    from sweep.study.trial_store import TrialStore


class Replicate(NamedTuple):
    """One job of the study: a trial's setting under one seed."""

    trial: int
    params: Mapping[str, Value]
    seed: Seed


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
    def open(self, trials: TrialStore) -> Session:
        """Create what the study needs before its first job. The caller holds the study's lock."""

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

    def wanted(self, trials: TrialStore) -> Mapping[int, Sequence[Seed]] | None:
        """Trial → the replicates that it gets for now. None: every trial gets all of them."""
        return None


class Session(ABC):
    """A study that is open: the results of its jobs, and what follows from them."""

    knows_all_runs = False  # whether `done` returns every run of the study; else only Optuna's trials do

    def __init__(self, objective: Objective):
        self.objective = objective

    def done(self, params: Params) -> dict[Seed, Entry]:
        """The replicates of a setting that already have a result, whatever Optuna knows of them."""
        return {}

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

    def close(self, finished: bool) -> None:  # noqa: B027  a function leaves nothing open
        """The study ends and no other coordinator works on it. `finished` is False after an exception."""
