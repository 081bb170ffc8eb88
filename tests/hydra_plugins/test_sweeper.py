"""The study engine in Hydra's own test suites, and with other Hydra applications."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite
from omegaconf import OmegaConf

from hydra_plugins.paretune.sweeper import SAMPLERS, ParetuneSweeper

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Future Hydra versions"),
    pytest.mark.usefixtures("hydra_by_default", "light_fork_server"),
]
IN_MEMORY = "hydra.sweeper.storage=null"


def test_hydra_finds_it():
    assert ParetuneSweeper.__name__ in [found.__name__ for found in Plugins.instance().discover(Sweeper)]


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("basic", ["hydra/sweeper=paretune", IN_MEMORY, "hydra.sweeper.n_jobs=2"]),
     ("paretune", ["hydra/sweeper=paretune", IN_MEMORY, "hydra.sweeper.n_jobs=2"])],
)  # fmt: skip
class TestSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("basic", ["hydra/sweeper=paretune", IN_MEMORY, "hydra.sweeper.n_jobs=2"])]
)
class TestBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.long
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/sweeper=paretune", IN_MEMORY, "hydra/launcher=paretune"])]
)
class TestIntegration(IntegrationTestSuite):
    pass


SCRIPT = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def sphere(cfg):
    x, y = cfg.x, cfg.y
    if cfg.error:
        raise RuntimeError("cfg.error is True")
    with open(cfg.log, "a") as file:
        file.write(f"{x} {y}\\n")
    value = float("nan") if cfg.nan else x**2 + y**2
    return (value, abs(x - 5)) if cfg.two else value

def configure(cfg, trial):
    trial.suggest_float("+w", 0.0, trial.params["x"] + 10)

if __name__ == "__main__":
    sphere()
"""
CONFIG = """
defaults:
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: tpe
hydra:
  sweeper:
    sampler:
      seed: 123
    direction: minimize
    study_name: sphere
    storage: null
    n_trials: 20
    n_jobs: 1
    max_failure_rate: 0.0
    params:
      x: range(-5.5, 5.5, step=0.5)
      y: choice(-5, 0, 5)
x: 1
y: 1
error: false
nan: false
two: false
log: log.txt
"""


@pytest.fixture
def sphere(tmp_path: Path):
    """A script without any import of paretune, with the config of hydra-optuna-sweeper's README."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text(CONFIG)
    (tmp_path / "sphere.py").write_text(textwrap.dedent(SCRIPT))

    def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], dict]:
        done = subprocess.run(
            [sys.executable, "sphere.py", "-m", "hydra.sweep.dir=out", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        results = tmp_path / "out/optimization_results.yaml"
        return done, OmegaConf.to_container(OmegaConf.load(results)) if results.exists() else {}

    run.folder = tmp_path
    return run


def calls(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text().splitlines()


@pytest.mark.long
def test_a_config_written_for_hydra_optuna_sweeper_runs_unchanged(sphere):
    done, results = sphere(f"hydra.sweeper.storage=sqlite:///{sphere.folder}/optuna.db")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="sphere", storage=f"sqlite:///{sphere.folder}/optuna.db")
    assert results == {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
    assert results["best_value"] <= 2.27  # the bound of its own test: 95% of seeds do better
    assert len(calls(sphere.folder)) == 20
    assert len(set(calls(sphere.folder))) == 20  # no setting runs twice
    again, _ = sphere(f"hydra.sweeper.storage=sqlite:///{sphere.folder}/optuna.db", "hydra.sweeper.n_trials=22")
    assert again.returncode == 0, again.stderr
    assert len(calls(sphere.folder)) == 22  # n_trials includes the earlier trials
    assert len([path for path in (sphere.folder / "out").iterdir() if path.is_dir()]) == 22


PRESET = """
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
hydra:
  mode: MULTIRUN
  sweeper:
    _target_: hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper
    storage:
      _target_: optuna.storages.RDBStorage
      url: sqlite:///optuna.db
    study_name: preset
    n_jobs: 1
    direction: maximize
    n_trials: 3
    sampler:
      _target_: optuna.samplers.TPESampler
      seed: 1234
      n_startup_trials: 10
      consider_prior: true
      prior_weight: 1.0
      consider_magic_clip: true
      consider_endpoints: false
      n_ei_candidates: 24
      multivariate: false
      warn_independent_sampling: true
    params:
      x: interval(0.0001, 0.1)
      y: choice(1, 2, 3)
"""


@pytest.mark.long
def test_a_preset_with_class_paths_and_a_storage_node_runs_unchanged(sphere):
    """The form of the much-used preset of lightning-hydra-template."""
    (sphere.folder / "conf/hparams_search").mkdir()
    (sphere.folder / "conf/hparams_search/preset.yaml").write_text(PRESET)
    config = sphere.folder / "conf/config.yaml"
    config.write_text("defaults: [_self_, {optional hparams_search: null}]\n" + CONFIG.partition("x: 1")[1] + "\n" +
                      CONFIG.partition("x: 1")[2])  # fmt: skip
    done, results = sphere("hparams_search=preset")
    assert done.returncode == 0, done.stderr
    assert len(calls(sphere.folder)) == 3
    study = optuna.load_study(study_name="preset", storage=f"sqlite:///{sphere.folder}/optuna.db")
    assert results["best_value"] == study.best_value == max(trial.value for trial in study.trials)
    none, _ = sphere("hparams_search=preset", "hydra.sweeper.n_trials=0", "hydra.sweeper.study_name=empty")
    assert none.returncode == 0, none.stderr
    assert len(calls(sphere.folder)) == 3


def test_a_grid_is_exhausted_and_a_fixed_key_is_not_searched(sphere):
    done, results = sphere("hydra/sweeper/sampler=grid", "hydra/launcher=paretune", "hydra.sweeper.n_jobs=2", "y=0")
    assert done.returncode == 0, done.stderr
    values = [x / 2 for x in range(-11, 11)][:20]  # n_trials is 20
    assert sorted(float(line.split()[0]) for line in calls(sphere.folder)) == values
    assert results["best_params"] == {"x": 0.0}


def test_several_objectives_and_a_space_extended_by_code(sphere):
    done, results = sphere(
        "two=true", "hydra.sweeper.direction=[minimize,minimize]", "hydra/sweeper/sampler=nsgaii",
        "hydra.sweeper.custom_search_space=sphere.configure", "hydra.sweeper.n_trials=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    front = [tuple(solution["values"]) for solution in results["solutions"]]
    assert front
    for a, b in itertools.permutations(front, 2):
        assert a == b or not all(x <= y for x, y in zip(a, b, strict=True))
    assert all(0 <= s["params"]["+w"] <= s["params"]["x"] + 10 for s in results["solutions"])


@pytest.mark.long
@pytest.mark.parametrize(("rate", "runs"), [("0.5", 2), ("1.0", 4)])
def test_failures_up_to_a_rate_are_accepted(sphere, rate: str, runs: int):
    done, _ = sphere(
        "error=true", f"hydra.sweeper.max_failure_rate={rate}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4"
    )
    assert ("RuntimeError: cfg.error is True" in done.stderr) == (runs == 2)
    assert (done.returncode == 0) == (runs == 4)
    assert len([path for path in (sphere.folder / "out").iterdir() if path.is_dir()]) == runs


@pytest.mark.long
def test_a_function_or_sampler_that_does_not_fit_the_study_is_reported(sphere):
    done, _ = sphere("two=true", "hydra.sweeper.n_trials=1")
    assert "returned 2 numbers, but hydra.sweeper.direction names 1" in done.stdout + done.stderr
    done, _ = sphere("nan=true", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert "not a number" in done.stdout
    done, _ = sphere("hydra/sweeper/sampler=cmaes", "hydra.sweeper.direction=[minimize,minimize]")
    assert done.returncode == 1
    assert "CmaEsSampler cannot search this study (2 objectives" in done.stderr
    assert "Traceback" not in done.stderr
    done, _ = sphere("hydra/sweeper/sampler=grid", "x=interval(0,1)")
    assert "x is an interval" in done.stderr


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("auto", "grid")])
@pytest.mark.parametrize("objectives", [1, 2])
def test_every_sampler_works_by_its_name(name: str, objectives: int):
    """A sampler is created from its preset and searches a space of numbers. CMA-ES supports one objective only."""
    from sweep.core.errors import UserError
    from sweep.study.search import samplers

    space = {
        "x": optuna.distributions.FloatDistribution(0, 1, step=0.25 if name == "bruteforce" else None),
        "n": optuna.distributions.IntDistribution(1, 9),
    }
    node = OmegaConf.create({**SAMPLERS[name], "seed": 1})
    if name == "cmaes" and objectives == 2:
        with pytest.raises(UserError, match="multi-objective"):
            samplers.check_sampler(node, ["minimize"] * objectives, space)
    else:
        samplers.check_sampler(node, ["minimize"] * objectives, space)
