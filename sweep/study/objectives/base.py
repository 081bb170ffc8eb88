"""What the engine must know of the application whose jobs it launches. Two kinds exist: our training runs, and any
Hydra application that returns numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.utils import JobReturn

from sweep.study.search.dimension import Value
from sweep.study.search.space import Params, Space

if TYPE_CHECKING:
    from sweep.study.trial_store import Entry, Seed, TrialStore


class Replicate(NamedTuple):
    """One job of the study: a trial's setting under one seed."""

    trial: int
    params: Mapping[str, Value]
    seed: Seed


class Objective(ABC):
    """`directions` and `worst` have one element per objective. `seeds` are the replicates that each trial gets."""

    directions: Sequence[str]
    metric_names: Sequence[str] | None
    worst: Sequence[float]
    study_name: str | None
    devices_per_run = 1
    keeps_ledger = False  # whether `done` knows all that was ever run, or Optuna is all there is

    @abstractmethod
    def seeds(self) -> tuple[Seed, ...]:
        """The replicates of a setting, at most."""

    @abstractmethod
    def check(self, space: Space, settings: Sequence[Params], searching: bool) -> None:
        """Compose and check these settings: all there will be, or where a sampler is `searching`, the corners.

        Raises:
            ConfigError: with all their faults.
        """

    @abstractmethod
    def open(self, trials: TrialStore, settings: Sequence[Params] | None) -> None:
        """Make what the study needs before its first job. Called under the study's lock. `settings` are all that there
        will be, where that is known."""

    @abstractmethod
    def attributes(self, params: Params) -> dict[str, Any]:
        """What a person reads in the trial."""

    def plain_settings(self, space: Space) -> list[Params]:
        """Settings to begin a search with."""
        return []

    def done(self, params: Params) -> dict[Seed, Entry]:
        """The replicates of a setting that are there already, whatever Optuna knows of them."""
        return {}

    def order(self, settings: Sequence[Params]) -> list[Params]:
        """In which order a finite study is run."""
        return list(settings)

    def wanted(self, trials: TrialStore) -> Mapping[int, Sequence[Seed]] | None:
        """Trial → the replicates that it is to get now; None for all of them, for every trial."""
        return None

    @abstractmethod
    def overrides(self, replicate: Replicate) -> list[str]:
        """The job's overrides, complete."""

    @abstractmethod
    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        """What came of a job. Raises what is not the job's own fault."""

    def announce(self, left: int, places: str) -> None:  # noqa: B027  not worth a word for a function
        """Say what is about to happen: so many jobs, and where."""

    def conclude(self, arguments: Sequence[str]) -> None:  # noqa: B027  nor this
        """Say what a person would do next, given the command's arguments."""

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """Whether so much has failed, of `at_least` jobs, that nothing more is to be launched."""
        return False

    @abstractmethod
    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raises what a person must see at the end."""

    @abstractmethod
    def close(self, trials: TrialStore, finished: bool) -> None:
        """The study has ended, in good order or not."""
