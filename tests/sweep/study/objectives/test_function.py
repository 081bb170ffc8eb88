"""A study of functions: its conditions are the overrides that are the same for all its jobs."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobReturn, JobStatus

from sweep.core.errors import UserError
from sweep.study.book import Book
from sweep.study.objectives.function import FunctionObjective
from sweep.study.scheduler import Scheduler
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Space
from sweep.study.trial_store import TrialStore


def command(storage: str, *arguments: str, value: object = 1.0, direction: str | None = "minimize") -> int:
    """Run the command with a function that always returns `value`; returns how many jobs it launched."""
    space = Space.of({}, arguments, ConfigLoaderImpl(create_config_search_path(None)), seed_is_replicate=False)
    found = Enumeration(space, list(space.settings()))
    app = FunctionObjective.from_space(lambda overrides: None, found, direction=direction, study_name="s")
    trials = TrialStore(
        storage=storage, name="s", directions=app.directions, metric_names=None, worst=app.worst,
        space=space.distributions,
    )  # fmt: skip
    book = Book(storage)
    session = app.open(book, trials)
    scheduler = Scheduler(book, trials, session, found, 0)
    scheduler.enqueue()
    count = 0
    while (replicate := scheduler.next_run()) is not None:
        returned = JobReturn(status=JobStatus.COMPLETED)
        returned.return_value = value
        scheduler.record_result(replicate, session.entry(replicate, returned))
        count += 1
    return count


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def test_another_fixed_override_is_refused_by_its_name(storage: str):
    assert command(storage, "x=1,2,3", "y=5") == 3
    assert command(storage, "x=1,2,3", "y=5") == 0
    with pytest.raises(UserError, match=r"y: 5 → 100\n.*hydra.sweeper.study_name="):
        command(storage, "x=1,2,3", "y=100")
    with pytest.raises(UserError, match="y: 5 → —"):
        command(storage, "x=1,2,3,4")
    with pytest.raises(UserError, match="z: — → 1"):
        command(storage, "x=1,2,3,4", "y=5", "+z=1")
    assert command(storage, "x=1,2,3,4", "y=5") == 1


def test_a_fixed_key_may_be_searched_later_but_not_the_reverse(storage: str):
    assert command(storage, "x=1,2", "y=5") == 2
    assert command(storage, "x=1,2", "y=5,6") == 4
    assert command(storage, "x=1,2", "y=5,6,7") == 2
    with pytest.raises(UserError, match="y: searched → 5"):
        command(storage, "x=1,2", "y=5")


def test_a_function_that_returns_nothing_has_no_best_trial(storage: str):
    command(storage, "x=1,2", value=None, direction=None)
    space = Space.of({}, ["x=1,2"], ConfigLoaderImpl(create_config_search_path(None)))
    trials = TrialStore(
        storage=storage, name="s", directions=["minimize"], metric_names=None, worst=[math.inf],
        space=space.distributions,
    )  # fmt: skip
    assert [trial.state.name for trial in trials.all()] == ["COMPLETE", "COMPLETE"]
    assert trials.best() == []


def test_a_study_without_a_result_may_begin_anew(storage: str):
    assert command(storage, "x=1,2", "y=5", value=None) == 2
    assert command(storage, "x=1,2", "y=6") == 2


def test_a_study_of_hydra_optuna_sweeper_is_compared_with_its_trials(storage: str):
    study = optuna.create_study(study_name="s", storage=storage)
    space = {"x": optuna.distributions.CategoricalDistribution([1, 2])}
    attributes = {"y": 5, "mine": "z"}
    study.add_trial(optuna.create_trial(value=1, params={"x": 1}, distributions=space, user_attrs=attributes))
    assert command(storage, "x=1,2", "y=5") == 2  # the trial has no entry of ours
    with pytest.raises(UserError, match="y: 5 → 6"):
        command(storage, "x=1,2", "y=6")


def test_a_secret_is_not_stored(storage: str):
    command(storage, "x=1", "api_key=planted")
    study = optuna.load_study(study_name="s", storage=storage)
    assert "planted" not in str([study.user_attrs, [trial.user_attrs for trial in study.trials]])
