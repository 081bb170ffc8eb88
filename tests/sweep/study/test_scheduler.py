"""Which job is next: with real Optuna storages, and a toy application whose jobs are one line of arithmetic."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobReturn, JobStatus

from sweep.study.book import Book
from sweep.study.entry import Entry, Seed
from sweep.study.objectives.base import Objective, Replicate, Session
from sweep.study.scheduler import Scheduler
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Params, Space
from sweep.study.trial_store import TrialStore


@dataclass(frozen=True, kw_only=True)
class Toy(Objective):
    """Score x, memory y."""

    directions: Sequence[str] = ("maximize", "minimize")
    worst: Sequence[float] = (0.0, float("inf"))
    study_name: str | None = "toy"
    seeds: tuple[Seed, ...] = (0, 1)

    def open(self, book: Book, trials: TrialStore) -> ToySession:
        book.open("toy")
        book.begin_command()
        book.retry()
        return ToySession(self)

    def attributes(self, params: Params) -> dict[str, object]:
        return {"setting": str(params)}

    def overrides(self, replicate: Replicate) -> list[str]:
        return []


class ToySession(Session):
    """Out of memory from y = 4 on."""

    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        outcome = returned.return_value
        oom = replicate.params.get("y", 1) >= 4 and outcome == "ok"
        outcome = "oom" if oom else outcome
        values = (None if oom else float(replicate.params["x"]), float(replicate.params.get("y", 1)))
        return Entry(outcome=outcome, values=values, violated={"out_of_memory": float(oom)}, final=outcome != "failed")

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        return False

    def require_complete(self, max_failure_rate: float | None) -> None: ...


def space(*arguments: str) -> Space:
    return Space.of({}, arguments, ConfigLoaderImpl(create_config_search_path(None)))


def scheduler_of(
    app: Toy, found: Space, storage: str | None = None, limit: int | None = None
) -> tuple[Scheduler, TrialStore]:
    trials = TrialStore(
        storage=storage,
        name="toy",
        directions=app.directions,
        metric_names=None,
        worst=app.worst,
        space=found.distributions,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    settings = list(found.settings()) if limit is None else None
    book = Book(storage)
    made = Scheduler(book, trials, app.open(book, trials), Enumeration(found, settings), limit or 0)
    book.beat()
    with trials.lock():
        made.enqueue()
    return made, trials


def ended(outcome: str = "ok") -> JobReturn:
    returned = JobReturn(status=JobStatus.COMPLETED)
    returned.return_value = outcome
    return returned


def record(made: Scheduler, replicate: Replicate, outcome: str = "ok") -> None:
    made.record_result(replicate, made._session.entry(replicate, ended(outcome)))


def run_all(made: Scheduler, outcomes: Mapping[tuple[int, Seed], str] | None = None) -> list[Replicate]:
    found = []
    while (replicate := made.next_run()) is not None:
        found.append(replicate)
        record(made, replicate, (outcomes or {}).get((replicate.trial, replicate.seed), "ok"))
    return found


def test_a_grid_runs_every_setting_under_every_seed_first_seeds_first():
    made, trials = scheduler_of(Toy(), space("x=1,2", "y=1,2"))
    assert made.left() == 8
    found = run_all(made)
    assert [(r.params["x"], r.params["y"], r.seed) for r in found] == [
        (x, y, seed) for seed in (0, 1) for x in (1, 2) for y in (1, 2)
    ]
    assert [trial.values for trial in trials.all()] == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert [trial.params for trial in trials.best()] == [{"x": 2, "y": 1}]


def test_out_of_memory_is_a_violated_constraint_and_does_not_run_under_another_seed():
    made, trials = scheduler_of(Toy(), space("x=choice(9)", "y=3,4"))
    assert [(r.params["y"], r.seed) for r in run_all(made)] == [(3, 0), (4, 0), (3, 1)]
    fine, oom = trials.all()
    assert (fine.state.name, oom.state.name) == ("COMPLETE", "COMPLETE")
    assert oom.values == [0.0, 4.0]  # the worst score, and the memory that it needed
    assert (fine.constraints, oom.constraints) == ({"out_of_memory": 0.0}, {"out_of_memory": 1.0})
    assert [trial.number for trial in trials.study.best_trials] == [fine.number]


def test_the_run_of_a_dead_coordinator_is_repeated_and_that_of_a_living_one_is_not(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    made, _ = scheduler_of(Toy(), space("x=1,2", "y=1"), storage)
    mine = made.next_run()
    code = DEAD.format(tests=str(Path(__file__).parent), storage=storage)
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert dead == ["1", "0"]  # a trial of the same study, and a seed
    taken = [(r.trial, r.seed) for r in run_all(made)]
    assert taken == [(1, 0), (mine.trial, 1), (1, 1)]
    record(made, mine)
    assert made.left() == 0


DEAD = """
import sys
sys.path.insert(0, {tests!r})
from test_scheduler import Toy, scheduler_of, space
replicate = scheduler_of(Toy(), space("x=1,2", "y=1"), {storage!r})[0].next_run()
print(replicate.trial, replicate.seed)
"""


def test_a_coordinator_closes_the_trial_of_another_one_with_its_constraint(tmp_path: Path):
    """Optuna's `Trial` object exists only in the process that asked for it, here in the first store."""
    storage = f"sqlite:///{tmp_path}/optuna.db"
    first, theirs = scheduler_of(Toy(), space("x=choice(9)", "y=choice(4)"), storage)
    replicate = first.next_run()
    second, mine = scheduler_of(Toy(), space("x=choice(9)", "y=choice(4)"), storage)
    mine.report(replicate.trial, 7, 0.5)
    record(second, replicate)
    [trial] = theirs.all()
    assert (trial.state.name, trial.constraints) == ("COMPLETE", {"out_of_memory": 1.0})
    assert trial.intermediate_values == {7: 0.5}
    assert trial.user_attrs["run:0"]["outcome"] == "oom"
    assert first.next_run() is None


def test_a_failed_run_is_repeated_by_the_next_command_and_not_by_this_one(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    made, trials = scheduler_of(Toy(), space("x=1,2", "y=1"), storage)
    assert len(run_all(made, {(0, 1): "failed"})) == 4
    assert trials.all()[0].values == [1, 1]  # the mean of the known values
    second, trials = scheduler_of(Toy(seeds=(0,)), space("x=choice(5)", "y=1"), f"{storage}2")
    assert len(run_all(second, {(0, 0): "failed"})) == 1
    assert trials.all()[0].state.name == "FAIL"
    third, _ = scheduler_of(Toy(seeds=(0,)), space("x=choice(5)", "y=1"), f"{storage}2")
    assert len(run_all(third)) == 1
    fourth, _ = scheduler_of(Toy(seeds=(0,)), space("x=choice(5)", "y=1"), f"{storage}2")
    assert run_all(fourth) == []


def test_a_search_counts_earlier_trials_and_runs_no_setting_twice(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    found = space("x=range(0,3)", "y=range(0,2)")  # six settings
    first, _ = scheduler_of(Toy(seeds=(0,)), found, storage, limit=4)
    assert len(run_all(first)) == 4
    second, trials = scheduler_of(Toy(seeds=(0,)), found, storage, limit=20)
    assert len(run_all(second)) == 2  # then every setting has run
    complete = [tuple(sorted(t.params.items())) for t in trials.all() if t.state.name == "COMPLETE"]
    assert max(Counter(complete).values()) == 1
    assert len(complete) == 6


def test_a_study_whose_every_trial_fails_ends():
    made, _ = scheduler_of(Toy(seeds=(0,)), space("x=interval(0,1)", "y=1,2"), limit=5)
    failures = {(number, 0): "failed" for number in range(99)}
    assert len(run_all(made, failures)) == 5


def test_new_choices_keep_the_old_trials(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    made, _ = scheduler_of(Toy(seeds=(0,)), space("x=1,2", "y=1"), storage)
    run_all(made)
    more, trials = scheduler_of(Toy(seeds=(0,)), space("x=1,2,3", "y=1"), storage)
    assert [r.params["x"] for r in run_all(more)] == [3]
    assert [trial.params["x"] for trial in trials.all()] == [1, 2, 3]


def test_a_command_that_does_not_fit_the_study_in_the_storage_is_refused(tmp_path: Path):
    from sweep.core.errors import UserError

    storage = f"sqlite:///{tmp_path}/optuna.db"
    scheduler_of(Toy(), space("x=interval(0,1)", "y=1,2"), storage, limit=1)[0].next_run()
    with pytest.raises(UserError, match="another study"):
        scheduler_of(Toy(), space("x=tag(log,interval(0.1,1))", "y=1,2"), storage, limit=1)
    single = Toy(directions=("maximize",), worst=(0.0,))
    with pytest.raises(UserError, match="with the objectives maximize, minimize, not maximize"):
        scheduler_of(single, space("x=interval(0,1)", "y=1,2"), storage, limit=1)


COORDINATOR = """
import sys, time
sys.path.insert(0, {tests!r})
from test_scheduler import Toy, record, scheduler_of, space
made, trials = scheduler_of(Toy(), space("x=range(0,4)", "y=range(0,3)"), {storage!r})
while (replicate := made.next_run()) is not None:
    time.sleep(0.01)
    record(made, replicate)
    print(replicate.trial, replicate.seed, flush=True)
"""


def test_three_coordinators_share_a_study_and_repeat_no_run(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    code = COORDINATOR.format(tests=str(Path(__file__).parent), storage=storage)
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [process.communicate(timeout=120)[0].split("\n")[:-1] for process in running]
    assert all(process.returncode == 0 for process in running)
    done = [line for found in lines for line in found]
    assert len(done) == len(set(done)) == 24
    assert sum(bool(found) for found in lines) >= 2
    study = optuna.load_study(study_name="toy", storage=storage)
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 12}
