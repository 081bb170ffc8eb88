"""Sweep syntax: what is searched, what is a replicate, and the name of a setting."""

from __future__ import annotations

import itertools

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.core.errors import UserError
from sweep.core.overrides import count_of_range
from sweep.core.setting import setting_digest, setting_name
from sweep.study.search.dimension import Dimension
from sweep.study.search.space import Space


def space(*arguments: str, **params: object) -> Space:
    conditional_on = params.pop("conditional_on", None)
    return Space.of(params, arguments, ConfigLoaderImpl(create_config_search_path(None)), conditional_on=conditional_on)


def dimension(argument: str) -> Dimension:
    return Dimension.of(OverridesParser.create().parse_overrides([argument])[0])


def test_choices_form_a_grid_and_seeds_are_replicates():
    found = space("variant=fft,lora_r8", "train.max_steps=choice(10,20)", "seed=0,1,2", "train.precision=fp32")
    assert found.seeds == (0, 1, 2)
    assert dict(found.fixed) == {"train.precision": "train.precision=fp32"}
    wanted = itertools.product(["fft", "lora_r8"], [10, 20])
    assert [tuple(setting.values()) for setting in found.settings()] == list(wanted)


def test_overrides_have_the_order_of_the_command_line():
    found = space("db=mysql,postgresql", "db.user=someone", "+n=choice(1,2)")
    assert found.overrides({"db": "mysql", "+n": 2}) == ["db=mysql", "db.user=someone", "+n=2"]


# The table of hydra-optuna-sweeper's tests, except for ranges, whose end is excluded as in Hydra.
@pytest.mark.parametrize(
    ("argument", "distribution"),
    [
        ("key=choice(1,2)", CategoricalDistribution([1, 2])),
        ("key=choice(true, false)", CategoricalDistribution([True, False])),
        ("key=choice('hello', 'world')", CategoricalDistribution(["hello", "world"])),
        ("key=range(1,3)", IntDistribution(1, 2)),
        ("key=range(8,16,8)", IntDistribution(8, 8)),
        ("key=range(0, 11, 5)", IntDistribution(0, 10, step=5)),
        ("key=range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("key=range(0.5, 5.5, step=1)", FloatDistribution(0.5, 4.5, step=1)),
        ("key=range(0,1,0.1)", FloatDistribution(0, 0.9, step=0.1)),
        ("key=interval(1, 5)", FloatDistribution(1, 5)),
        ("key=int(interval(1, 5))", IntDistribution(1, 5)),
        ("key=tag(log, interval(1, 5))", FloatDistribution(1, 5, log=True)),
        ("key=tag(log, int(interval(1, 5)))", IntDistribution(1, 5, log=True)),
    ],
)
def test_hydra_s_syntax_gives_optuna_s_distributions(argument: str, distribution: object):
    assert dimension(argument).distribution == distribution


def test_shuffled_values_keep_their_own_texts():
    found = dimension("key=shuffle(range(1,20))")
    assert set(found.values) == set(range(1, 20))
    assert all(found.text(value) == str(value) for value in found.values)


@pytest.mark.parametrize(
    ("node", "distribution"),
    [
        ({"type": "categorical", "choices": [1, 2, 3]}, CategoricalDistribution([1, 2, 3])),
        ({"type": "int", "low": 0, "high": 10}, IntDistribution(0, 10)),
        ({"type": "int", "low": 0, "high": 10, "step": 2}, IntDistribution(0, 10, step=2)),
        ({"type": "int", "low": 1, "high": 100, "log": True}, IntDistribution(1, 100, log=True)),
        ({"type": "float", "low": 0, "high": 1}, FloatDistribution(0, 1)),
        ({"type": "float", "low": 0, "high": 10, "step": 2}, FloatDistribution(0, 10, step=2)),
        ({"type": "float", "low": 1, "high": 100, "log": True}, FloatDistribution(1, 100, log=True)),
    ],
)
def test_the_old_form_of_a_search_space(node: dict, distribution: object):
    assert space(key=node).dimensions["key"].distribution == distribution


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-5, 5).filter(bool))
def test_a_range_has_python_s_values(start: int, stop: int, step: int):
    wanted = list(range(start, stop, step))
    if not wanted:
        with pytest.raises(UserError, match="no value"):
            dimension(f"key=range({start},{stop},{step})")
        return
    found = dimension(f"key=range({start},{stop},{step})")
    assert list(found.values) == wanted
    distribution = found.distribution
    assert sorted(wanted) == list(range(distribution.low, distribution.high + 1, distribution.step))


def test_the_command_line_has_priority_over_params():
    found = space("variant=qlora_r16", variant="fft,lora_r8", seed="0,1")
    assert (found.dimensions, dict(found.fixed), found.seeds) == ({}, {"variant": "variant=qlora_r16"}, (0, 1))


def test_a_value_that_is_named_twice_is_searched_once():
    assert space("variant=fft,fft").dimensions["variant"].values == ("fft",)


def test_a_key_exists_only_under_some_values_of_other_keys():
    found = space(
        "variant=fft,lora", "variant.r=4,8", "variant.alpha=1,2",
        conditional_on={"variant.r": {"variant": "lora"}, "variant.alpha": {"variant.r": [8]}},
    )  # fmt: skip
    assert list(found.settings()) == [
        {"variant": "fft"},
        {"variant": "lora", "variant.r": 4},
        {"variant": "lora", "variant.r": 8, "variant.alpha": 1},
        {"variant": "lora", "variant.r": 8, "variant.alpha": 2},
    ]
    assert found.in_order_of_dependence() == ["variant", "variant.r", "variant.alpha"]


def test_a_key_that_some_presets_lack_is_searched_under_the_other_presets():
    plain = space("variant=fft,lora", "variant.r=4,8", "train.x=1")
    has = {"fft": [], "lora": ["variant.r"]}
    found = plain.conditioned(lambda group, choice, key: key in has[choice], ["variant"])
    assert [len(setting) for setting in found.settings()] == [1, 2, 2]
    assert plain.conditioned(lambda *_: False, ["variant"]) == plain  # Hydra reports that no preset has it


@pytest.mark.parametrize(
    ("arguments", "conditional_on", "words"),
    [
        (["seed=a,b"], None, "whole number"),
        (["x=tag(log,interval(0,1))"], None, "above 0"),
        (["x=interval(2,1)"], None, "lower end"),
        (["x=1,2", "y=1,2"], {"x": {"z": 1}}, "z is not searched"),
        (["x=1,2", "y=1,2"], {"x": {"y": 3}}, "never has that value; it has 1, 2"),
        (["x=1,2"], {"x": {"x": 1}}, "itself"),
        (["x=1,2", "y=1,2"], {"x": {"y": 1}, "y": {"x": 1}}, "itself"),
    ],
)
def test_what_cannot_be_searched_is_refused(arguments: list[str], conditional_on: dict | None, words: str):
    with pytest.raises(UserError, match=words):
        space(*arguments, conditional_on=conditional_on)


def test_a_setting_is_named_after_its_variant_and_the_other_swept_keys():
    config = {"variant": {"name": "lora", "r": 4, "alpha": 8}, "train": {"max_steps": 9, "r": 1}}
    assert setting_name(config, ["variant"]) == "lora"
    assert setting_name(config, ["variant", "variant.r", "train.max_steps", "seed"]) == "lora r=4 max_steps=9"
    assert setting_name(config, ["variant.r", "train.r"]) == "lora variant.r=4 train.r=1"


def test_a_variant_key_that_is_overridden_for_all_is_part_of_the_name():
    assert space("variant=lora_r8", "variant.r=4", "seed=0,1").swept == ["variant.r"]


def test_the_digest_depends_on_the_variant_s_values_and_not_on_the_seed():
    config = {"variant": {"name": "lora", "r": 4}, "seed": 0}
    same = setting_digest({**config, "seed": 1}, ["variant", "seed"])
    assert setting_digest(config, ["variant", "seed"]) == same
    assert setting_digest({**config, "variant": {"name": "lora", "r": 8}}, ["variant"]) != same


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("range(0.001,0.01,0.001)", [f"0.00{i}" for i in range(1, 10)]),
        ("range(0.7,1.2,0.1)", ["0.7", "0.8", "0.9", "1.0", "1.1"]),
        ("range(0.3,0,-0.1)", ["0.3", "0.2", "0.1"]),
    ],
)
def test_a_range_has_the_numbers_that_its_decimals_mean(text: str, numbers: list[str], recwarn):
    found = dimension(f"x={text}")
    assert [found.text(value) for value in found.values] == numbers
    distribution = found.distribution
    assert list(recwarn) == []  # Optuna warns if the ends are no multiple of the step
    proposed = [distribution.low + i * distribution.step for i in range(len(numbers))]  # as Optuna adds them up
    assert sorted(found.text(found.exact(value)) for value in proposed) == sorted(numbers)


def test_values_of_yaml_are_values_of_overrides():
    found = space("k=1", a=None, b=True, c=[1, None, "it's"])
    assert found.fixed == {"a": "a=null", "b": "b=true", "c": 'c=[1,null,"it\'s"]', "k": "k=1"}


def test_a_long_range_is_counted_and_not_listed():
    found = dimension("x=range(0,1000000000)")
    assert found.values is None
    assert found.distribution == IntDistribution(0, 999_999_999)
    assert (found.low, found.high, found.ends) == (0, 999_999_999, (0, 999_999_999))
    assert not space("x=range(0,1000000000)").size_at_most(256)
    assert dimension("x=range(10,-1000000000,-3)").distribution == IntDistribution(-999_999_998, 10, step=3)
    assert dimension("x=range(0.0,1000000.0,0.5)").distribution == FloatDistribution(0.0, 999_999.5, step=0.5)
    with pytest.raises(UserError, match="has more than 10000 seeds"):
        space("seed=range(0,1000000000)")


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-9, 9).filter(bool))
def test_the_count_of_a_range_is_python_s(start: int, stop: int, step: int):
    override = OverridesParser.create().parse_override(f"x=range({start},{stop},{step})")
    assert count_of_range(override.value()) == len(range(start, stop, step))
