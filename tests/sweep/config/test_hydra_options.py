"""The options of the sweeper and of the launcher have ranges, and all their faults are reported together."""

from __future__ import annotations

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from sweep.config.hydra_options import faults, launcher_options, sweeper_options
from sweep.core.errors import ConfigError
from sweep.hydra_compat.composer import Composer


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_trials": -3}, "hydra.sweeper.n_trials = -3 must be at least 0"),
        ({"n_trials": 2.5}, "hydra.sweeper.n_trials = 2.5 must be a whole number"),
        ({"n_jobs": 0}, "hydra.sweeper.n_jobs = 0 must be at least 1"),
        ({"max_failure_rate": 7}, "hydra.sweeper.max_failure_rate = 7 must be at most 1.0"),
        ({"max_failure_rate": float("nan")}, "hydra.sweeper.max_failure_rate = nan must be a finite number"),
        ({"max_failure_rate": float("inf")}, "hydra.sweeper.max_failure_rate = inf must be a finite number"),
        ({"params": ["x"]}, "hydra.sweeper.params = ['x'] "),
        ({"n_trial": 3}, "hydra.sweeper.n_trial = 3 unknown key; did you mean n_trials?"),
    ],
)
def test_a_wrong_option_of_the_sweeper_is_refused(options: dict, words: str):
    with pytest.raises(ConfigError) as caught:
        sweeper_options({"_target_": "x", **options})
    assert words in " ".join(str(caught.value).split())


def test_options_of_the_launcher_have_ranges():
    with pytest.raises(ConfigError) as caught:
        launcher_options({"devices_per_run": 0, "slots": -1})
    assert [fault.key for fault in caught.value.faults] == ["hydra.launcher.devices_per_run", "hydra.launcher.slots"]
    assert launcher_options({"slots": None}).devices == "auto"


def test_an_option_keeps_its_value_and_null_is_absent():
    found = sweeper_options(OmegaConf.create({"n_trials": 0, "max_failure_rate": 0, "params": {"x": None}}))
    assert (found.n_trials, found.max_failure_rate, found.n_jobs, found.params) == (0, 0.0, 1, {"x": None})


def test_faults_are_found_before_hydra_builds_the_sweeper():
    overrides = [
        "hydra.sweeper.n_trials=-1", "hydra.launcher.slots=0", "+hydra.sweeper.params.seed=${hydra:job.num}",
    ]  # fmt: skip
    with Composer(ROOT / "conf", None, "config") as composer:
        found = [fault.key for fault in faults(composer.compose(overrides, multirun=True))]
    assert found == ["hydra.sweeper.params.seed", "hydra.sweeper.n_trials", "hydra.launcher.slots"]
