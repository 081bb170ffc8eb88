"""Configs of jobs against Hydra's own composition of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import ROOT
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from sweep.hydra_compat.composition import Compositions


@pytest.fixture(scope="module")
def master() -> Iterator[tuple[object, DictConfig]]:
    before = VersionBase.instance().version_base
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", ["hydra.sweep.dir=${study.name}"], RunMode.MULTIRUN)
    VersionBase.instance().version_base = before


@pytest.fixture(scope="module")
def compositions(master: tuple[object, DictConfig]) -> Compositions:
    return Compositions(*master)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["variant=fft", "seed=3"],
        ["seed=4", "variant=fft", "+mine={a: [1, ${seed}]}", "study.swept=[a,b]"],
        ["variant=lora_r8", "variant.r=2", "variant.learning_rate=1e-3"],
        ["variant.r=4", "~variant.dropout"],
        ["model=gpt2", "task=generation", "data@task.data=gsm8k", "train.max_steps=3"],
        ["hydra.job.name=other", "seed=1"],
        ["study={name: x}"],
    ],
)
def test_a_job_s_config_is_what_hydra_composes(
    master: tuple[object, DictConfig], compositions: Compositions, overrides
):
    loader, config = master
    own = OmegaConf.to_yaml(loader.load_sweep_config(config, overrides))
    assert OmegaConf.to_yaml(compositions.of(overrides)) == own
    assert OmegaConf.to_yaml(compositions.of(overrides)) == own  # what is kept was left as it was


@pytest.mark.parametrize(
    "overrides", [["variant.nokey=1"], ["variant=nobody"], ["seed=[1"], ["a=1,2"], ["++variant=fft"]]
)
def test_what_cannot_be_composed_is_told_in_hydra_s_words(
    master: tuple[object, DictConfig], compositions: Compositions, overrides
):
    loader, config = master
    with pytest.raises(HydraException) as own:
        loader.load_sweep_config(config, overrides)
    with pytest.raises(HydraException) as ours:
        compositions.of(overrides)
    assert str(ours.value) == str(own.value)
