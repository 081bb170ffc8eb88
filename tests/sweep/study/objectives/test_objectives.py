"""An objective is complete when it is constructed, and the exception of a failed job comes without its overrides."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from conftest import ROOT
from hydra.core.utils import JobReturn, JobStatus

from sweep.config.hydra_options import SweeperOptions
from sweep.core.errors import ConfigError
from sweep.hydra_compat.composer import Composer
from sweep.hydra_compat.isolated_job import exception_of
from sweep.launch.hydra_task import TrainingTask
from sweep.study.objectives.training import TrainingObjective
from sweep.study.search.enumeration import enumerate_settings

Constructed = Callable[..., TrainingObjective]


@pytest.fixture(scope="module")
def constructed() -> Constructed:
    def construct(*arguments: str) -> TrainingObjective:
        with Composer(ROOT / "conf", None, "config") as composer:
            config = composer.compose(["study.name=x"], multirun=True)
            found = enumerate_settings(composer.loader, config, SweeperOptions(), arguments, seed_is_replicate=True)
            compose = functools.partial(composer.loader.load_sweep_config, config)
            return TrainingObjective.from_space(compose, found, task=TrainingTask(), direction=None)

    return construct


def test_an_objective_is_complete_before_the_study_opens(constructed: Constructed):
    objective = constructed("study.name=mine", "variant=fft,lora_r8", "seed=3,4")
    assert (objective.study_name, objective.seeds, objective.devices_per_run) == ("mine", (3, 4), 1)
    assert (list(objective.directions), list(objective.worst)) == (["maximize", "minimize"], [0.0, float("inf")])
    assert [setting.name for setting in objective.settings.known.values()] == ["fft", "lora_r8"]


def test_the_faults_of_all_settings_are_raised_together(constructed: Constructed):
    with pytest.raises(ConfigError) as caught:
        constructed("variant=lora_r8", "variant.r=0,-1")
    assert [(fault.key, fault.value) for fault in caught.value.faults] == [("variant.r", "0"), ("variant.r", "-1")]


def test_a_failed_job_gives_its_exception_and_prints_no_override(capsys: pytest.CaptureFixture[str]):
    failure = ValueError("wrong")
    returned = JobReturn(overrides=["password=secret"], status=JobStatus.FAILED)
    returned.return_value = failure
    assert exception_of(returned) is failure
    assert capsys.readouterr() == ("", "")
    assert exception_of(JobReturn(status=JobStatus.COMPLETED)) is None
