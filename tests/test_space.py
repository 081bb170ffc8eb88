"""Sweep syntax: what is searched, what is a replicate, and what a setting is called."""

from __future__ import annotations

import itertools

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path

from sweep.errors import UserError
from sweep.study.setting import setting_digest, setting_name
from sweep.study.space import Space


def space(*arguments: str, **params: object) -> Space:
    return Space.of(params, arguments, ConfigLoaderImpl(create_config_search_path(None)))


def test_choices_form_a_grid_and_seeds_are_replicates():
    found = space("variant=fft,lora_r8", "train.max_steps=choice(10,20)", "seed=0,1,2", "train.precision=fp32")
    assert found.seeds == (0, 1, 2)
    assert found.fixed == ("train.precision=fp32",)
    wanted = itertools.product(["fft", "lora_r8"], ["10", "20"])
    assert [tuple(setting.values()) for setting in found.settings()] == list(wanted)


def test_a_range_stops_before_its_end_as_hydra_says():
    assert space("variant.r=range(8,16,8)").choices == {"variant.r": ("8",)}


def test_the_command_line_wins_over_params():
    found = space("variant=qlora_r16", variant="fft,lora_r8", seed="0,1")
    assert (found.choices, found.fixed, found.seeds) == ({}, ("variant=qlora_r16",), (0, 1))


def test_a_value_named_twice_is_one():
    assert space("variant=fft,fft").choices == {"variant": ("fft",)}


@pytest.mark.parametrize("argument", ["variant.learning_rate=interval(1e-5,1e-3)", "seed=a,b"])
def test_what_cannot_be_swept_is_told(argument: str):
    with pytest.raises(UserError):
        space(argument)


def test_a_setting_is_named_after_its_variant_and_what_else_is_swept():
    config = {"variant": {"name": "lora", "r": 4, "alpha": 8}, "train": {"max_steps": 9, "r": 1}}
    assert setting_name(config, ["variant"]) == "lora"
    assert setting_name(config, ["variant", "variant.r", "train.max_steps", "seed"]) == "lora r=4 max_steps=9"
    assert setting_name(config, ["variant.r", "train.r"]) == "lora variant.r=4 train.r=1"


def test_the_variant_overridden_for_all_is_part_of_the_name():
    assert space("variant=lora_r8", "variant.r=4", "seed=0,1").swept == ["variant.r"]


def test_the_digest_follows_the_variant_s_values_and_not_the_seed():
    config = {"variant": {"name": "lora", "r": 4}, "seed": 0}
    same = setting_digest({**config, "seed": 1}, ["variant", "seed"])
    assert setting_digest(config, ["variant", "seed"]) == same
    assert setting_digest({**config, "variant": {"name": "lora", "r": 8}}, ["variant"]) != same
