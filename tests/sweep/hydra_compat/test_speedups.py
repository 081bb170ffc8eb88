"""Hydra made quick: whatever comes out is what came out before."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import omegaconf.base
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container, Node
from omegaconf.errors import GrammarParseError

from sweep.__main__ import CONF
from sweep.hydra_compat import speedups
from sweep.hydra_compat.speedups import quicken

COMMAND_LINES = [
    [],
    ["hydra.sweeper.n_trials=7", "+hydra.sweeper.params.seed='0,1'", "hydra/launcher=basic"],
    ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra/sweeper/sampler=tpe", "variant=lora_r8"],
    [],
]
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab c:#-'\"\n\t\\${}[],é한😀\u0085\ufeff")
TEXTS = st.text(CHARACTERS).map(lambda text: text.replace("${", "$"))  # or it would have to be an interpolation
SCALARS = TEXTS | st.integers() | st.floats() | st.booleans() | st.none() | st.binary(max_size=3)
KEYS = st.text(CHARACTERS, max_size=6) | st.integers()
TREES = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda c: st.lists(c, max_size=4) | st.dictionaries(KEYS, c, max_size=4), max_leaves=9)
)


class Colour(Enum):
    RED = 1


@dataclass
class Inner:
    colour: Colour = Colour.RED
    path: Path = Path("a")
    raw: bytes = b"\x00"
    either: int | str = 3
    needed: str = "???"


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    listed: list[Inner] = field(default_factory=lambda: [Inner()])
    by_name: dict[str, float] = field(default_factory=lambda: {"x": 1.0})
    again: Any = "${inner.either}"
    nothing: Inner | None = None


class Mine(DictConfig):
    """A container of a user's own class."""


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What `quicken` replaces is put back."""
    before = DictConfig.__deepcopy__, ListConfig.__deepcopy__, OmegaConf.to_yaml, omegaconf.base.parse
    shared = vars(ConfigStore).get("__deepcopy__")
    yield
    DictConfig.__deepcopy__, ListConfig.__deepcopy__, to_yaml, omegaconf.base.parse = before
    OmegaConf.to_yaml = staticmethod(to_yaml)
    if shared is None:
        vars(ConfigStore).get("__deepcopy__") and delattr(ConfigStore, "__deepcopy__")
    else:
        ConfigStore.__deepcopy__ = shared


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


def nodes(node: Node) -> list[Node]:
    content = node.__dict__.get("_content")
    below = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [node, *(inner for child in below for inner in nodes(child))]


def anatomy(node: Node) -> Any:
    """All that makes a node, but who is above it."""
    content = node.__dict__.get("_content", node.__dict__.get("_val"))
    if isinstance(content, dict):
        content = {key: anatomy(child) for key, child in content.items()}
    elif isinstance(content, list):
        content = [anatomy(child) for child in content]
    elif isinstance(content, Node):
        content = anatomy(content)
    return type(node).__name__, repr(node._metadata), repr(content)


def config_with_everything() -> DictConfig:
    config = OmegaConf.create(
        {
            "typed": OmegaConf.structured(Outer),
            "plain": {"a": [1, 2.5, None, "${typed.inner.either}", [True, {"b": "???"}]]},
            "missing": "???",
        }
    )
    OmegaConf.set_readonly(config.plain, True)
    OmegaConf.set_struct(config, True)
    config._get_flag("struct")
    config._metadata.resolver_cache["now"] = {"%Y": 2026}
    return config


def check_copy(config: Container) -> None:
    quicken()
    before = anatomy(config)
    copied = deepcopy(config)
    assert anatomy(copied) == before == anatomy(config)
    assert anatomy(copied) == anatomy(pickle.loads(pickle.dumps(copied)))
    ours, theirs = nodes(copied), nodes(config)
    for attribute in (id, lambda n: id(n._metadata), lambda n: id(n._metadata.flags)):
        assert not {attribute(node) for node in ours} & {attribute(node) for node in theirs}
    for node in ours[1:]:
        assert any(node._get_parent() is other for other in ours)


def test_sharing_the_store_changes_no_config_and_the_configs_change_no_store():
    copied = composed()
    before = deepcopy(ConfigStore.instance().repo)
    quicken()
    assert composed() == copied
    assert composed()[0] == composed()[-1]
    assert ConfigStore.instance().repo == before


def test_a_copy_has_all_that_its_original_has_and_shares_nothing():
    check_copy(config_with_everything())


@given(tree=TREES)
def test_a_copy_of_any_tree_has_all_that_its_original_has(tree: dict[Any, Any]):
    check_copy(OmegaConf.create(tree, flags={"allow_objects": True}))


def test_a_copy_leaves_its_original_alone_and_stays_below_its_parent():
    quicken()
    config = config_with_everything()
    part = deepcopy(config.plain)
    assert part._get_parent() is config
    assert part.a[3] == 3  # its interpolation finds the way up
    OmegaConf.set_readonly(part, False)
    part.a[0] = 99
    assert config.plain.a[0] == 1
    assert OmegaConf.is_readonly(config.plain)
    copied = deepcopy(config)
    copied._metadata.resolver_cache["now"]["%Y"] = 1999
    assert config._metadata.resolver_cache["now"] == {"%Y": 2026}


def test_an_interpolation_that_was_parsed_before_finds_what_is_there_now():
    quicken()
    for number in range(3):
        config = OmegaConf.create({"a": number, "b": "x${a}-${oc.env:HOME}", "c": {"b": "${..b}"}})
        assert config.c.b == f"x{number}-{os.environ['HOME']}"
    with pytest.raises(GrammarParseError):
        _ = OmegaConf.create({"a": "${"}).a


def test_a_container_of_another_class_is_copied_as_omegaconf_does():
    quicken()
    config = OmegaConf.create({})
    config.__dict__["_content"]["mine"] = Mine({"a": [1]}, parent=config)
    assert deepcopy(config).mine == {"a": [1]}
    assert type(deepcopy(config).mine) is DictConfig


@given(tree=TREES)
@example(tree={"": 1})
@example(tree={"a": "😀"})
@example(tree={"a": {"": {}}})
@example(tree={"a": "0x1F", "b": "yes", "c": "1e-5", "d": "", "e": "a\nb"})
def test_yaml_is_letter_for_letter_omegaconf_s(tree: dict[Any, Any]):
    config = OmegaConf.create(tree, flags={"allow_objects": True})
    assert speedups.to_yaml(config) == speedups._to_yaml(config)
    texts = OmegaConf.create({str(key): value for key, value in tree.items()}, flags={"allow_objects": True})
    assert speedups.to_yaml(texts, resolve=True) == speedups._to_yaml(texts, resolve=True)
    assert speedups.to_yaml(OmegaConf.create([tree])) == speedups._to_yaml(OmegaConf.create([tree]))


def test_yaml_of_whole_configs_is_omegaconf_s():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in COMMAND_LINES:
            config = compose("config", overrides, return_hydra_config=True)
            assert speedups.to_yaml(config) == speedups._to_yaml(config)


def test_yaml_of_everything_a_config_can_hold_is_omegaconf_s():
    config = config_with_everything()
    OmegaConf.update(config, "typed.by_colour", {Colour.RED: Colour.RED}, force_add=True)
    assert "RED: RED" in speedups.to_yaml(config)
    assert speedups.to_yaml(config) == speedups._to_yaml(config)
    assert speedups.to_yaml(config, sort_keys=True) == speedups._to_yaml(config, sort_keys=True)
    for nothing in (DictConfig(None), DictConfig("???"), DictConfig("${a}"), ListConfig(None), OmegaConf.create([])):
        assert speedups.to_yaml(nothing) == speedups._to_yaml(nothing)
    assert speedups.to_yaml(Outer) == speedups._to_yaml(Outer)
    with pytest.raises(ValueError, match="Invalid input"):
        speedups.to_yaml(3)
