"""Samplers by the names that configs of hydra-optuna-sweeper contain."""

from __future__ import annotations

import functools

import optuna
import pytest

from sweep.study.search import samplers

PLUGIN = "hydra_plugins.hydra_optuna_sweeper.config"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("optuna.samplers.TPESampler", optuna.samplers.TPESampler),
        (f"{PLUGIN}.TPESamplerConfig", optuna.samplers.TPESampler),
        (f"{PLUGIN}.CmaEsSamplerConfig", optuna.samplers.CmaEsSampler),
        (f"{PLUGIN}.raise_motpe_removed", optuna.samplers.TPESampler),
        (f"{PLUGIN}.MOTPESamplerConfig", optuna.samplers.TPESampler),
        ("optuna.samplers.MOTPESampler", optuna.samplers.TPESampler),
    ],
)
def test_a_sampler_is_built_from_its_target(target: str, kind: type):
    assert type(samplers.build({"_target_": target, "seed": None})) is kind


def test_options_that_optuna_has_renamed_or_removed_are_accepted():
    old = {"consider_prior": True, "prior_weight": 1.0, "consider_magic_clip": True, "consider_endpoints": False}
    built = samplers.build({"_target_": "optuna.samplers.MOTPESampler", "n_ehvi_candidates": 7, "seed": 1, **old})
    assert type(built) is optuna.samplers.TPESampler


def test_a_grid_is_known_by_its_node_and_by_what_hydra_has_built_of_it():
    assert samplers.kind_of({"_target_": "optuna.samplers.GridSampler", "_partial_": True}) == samplers.GRID
    assert samplers.kind_of({"_target_": f"{PLUGIN}.GridSamplerConfig"}) == samplers.GRID
    assert samplers.kind_of(functools.partial(optuna.samplers.GridSampler)) == samplers.GRID
    assert samplers.kind_of(optuna.samplers.TPESampler()) is None
