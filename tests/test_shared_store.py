"""Composition with a shared store: nothing comes out different, and nothing leaks from one config into the next."""

from __future__ import annotations

from copy import deepcopy

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from sweep.__main__ import CONF
from sweep.composition import share_config_store

COMMAND_LINES = [
    [],
    ["hydra.sweeper.n_trials=7", "+hydra.sweeper.params.seed='0,1'", "hydra/launcher=basic"],
    ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra/sweeper/sampler=tpe", "variant=lora_r8"],
    [],
]


def composed() -> list[str]:
    """The composed configs of all command lines, each changed afterwards as launchers do."""
    texts = []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in COMMAND_LINES:
            config = compose("config", overrides, return_hydra_config=True)
            texts.append(OmegaConf.to_yaml(config, resolve=False))
            OmegaConf.set_readonly(config, False)
            OmegaConf.set_struct(config, False)
            config.hydra.job.num = 99
            config.hydra.sweeper.n_trials = 99
    return texts


def test_sharing_the_store_changes_no_config_and_the_configs_change_no_store(monkeypatch):
    monkeypatch.setattr(ConfigStore, "__deepcopy__", None, raising=False)  # put back afterwards, whatever it was
    del ConfigStore.__deepcopy__
    copied = composed()
    before = deepcopy(ConfigStore.instance().repo)
    share_config_store()
    assert composed() == copied
    assert composed()[0] == composed()[-1]
    assert ConfigStore.instance().repo == before
