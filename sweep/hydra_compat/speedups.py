"""Hydra and OmegaConf without what they repeat: the same results in less time.

A multirun composes, copies and writes a config for every job. In hydra-core 1.3 and omegaconf 2.3 that is 40 ms a job,
most of it in four places, which `quicken` replaces in this process. None of the replacements changes a result, which
tests hold them to.
"""

from __future__ import annotations

import copy
import functools
from enum import Enum
from typing import Any

import omegaconf.base
import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import (
    AnyNode,
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    ListConfig,
    OmegaConf,
    StringNode,
    grammar_parser,
)
from omegaconf.base import Container, Metadata, Node
from omegaconf.omegaconf import get_omega_conf_dumper

_LEAVES = frozenset({AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode})
_CONTAINERS = (DictConfig, ListConfig)
_parsed = functools.lru_cache(1024)(grammar_parser.parse)
_to_yaml = OmegaConf.to_yaml


def quicken() -> None:
    """Share the store of structured configs, parse an interpolation once, copy configs without the general machinery
    of `copy`, and let libyaml write them. Calling it again changes nothing."""
    # Hydra copies its whole store for every composition and for every group that `--help` lists (hydra-core 1.3,
    # `CachingConfigRepository`), 6 ms each. What is loaded from it is a copy already, and the store is a singleton.
    ConfigStore.__deepcopy__ = lambda store, memo: store
    omegaconf.base.parse = _parsed
    DictConfig.__deepcopy__ = ListConfig.__deepcopy__ = deepcopied
    if yaml.__with_libyaml__:
        OmegaConf.to_yaml = staticmethod(to_yaml)


def deepcopied(container: Container, memo: dict[int, Any]) -> Container:
    """`copy.deepcopy` of a config: four times faster than OmegaConf's own. The copy stays below the same parent."""
    return _copied(container, container.__dict__["_parent"], memo)


def _copied(node: Node, parent: Node | None, memo: dict[int, Any]) -> Node:
    kind, state = type(node), node.__dict__
    if kind not in _LEAVES:
        kind = next((container for container in _CONTAINERS if isinstance(node, container)), None)
    if kind is None:
        return _copied_by_itself(node, parent, memo)
    new = object.__new__(kind)
    new.__dict__.update(state)
    new.__dict__.update(_parent=parent, _metadata=_copied_metadata(state["_metadata"], memo), _flags_cache=None)
    content = state.get("_content")  # a leaf's value is shared, as OmegaConf's copies share it
    if type(content) is dict:
        new.__dict__["_content"] = {key: _copied(child, new, memo) for key, child in content.items()}
    elif type(content) is list:
        new.__dict__["_content"] = [_copied(child, new, memo) for child in content]
    return new


def _copied_by_itself(node: Node, parent: Node | None, memo: dict[int, Any]) -> Node:
    above, node.__dict__["_parent"] = node.__dict__["_parent"], None
    try:
        new = copy.deepcopy(node, memo)
    finally:
        node.__dict__["_parent"] = above
    new.__dict__["_parent"] = parent
    return new


def _copied_metadata(metadata: Metadata, memo: dict[int, Any]) -> Metadata:
    new = object.__new__(type(metadata))
    new.__dict__.update(metadata.__dict__)
    new.flags = dict(metadata.flags) if metadata.flags is not None else None
    cache = metadata.resolver_cache
    new.resolver_cache = copy.deepcopy(cache, memo) if cache else copy.copy(cache)
    return new


class _Dumper(yaml.CDumper if yaml.__with_libyaml__ else yaml.Dumper):
    """OmegaConf's dumper on libyaml's emitter."""

    yaml_representers = get_omega_conf_dumper().yaml_representers


def to_yaml(cfg: Any, *, resolve: bool = False, sort_keys: bool = False) -> str:
    """`OmegaConf.to_yaml` by libyaml. Where the two emitters differ (libyaml escapes what is beyond Unicode's basic
    plane, and writes empty keys in another way), OmegaConf's own is asked."""
    if not isinstance(cfg, Container) or not isinstance(cfg._value(), dict | list):
        return _to_yaml(cfg, resolve=resolve, sort_keys=sort_keys)
    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True) if resolve else _plain(cfg)
    text = yaml.dump(plain, default_flow_style=False, allow_unicode=True, sort_keys=sort_keys, Dumper=_Dumper)
    if "\\" in text or "'':" in text:
        return _to_yaml(cfg, resolve=resolve, sort_keys=sort_keys)
    return text


def _plain(node: Any) -> Any:
    """`OmegaConf.to_container` with nothing resolved and names for enumerations."""
    if not isinstance(node, Node):
        return node.name if isinstance(node, Enum) else node
    content = node._value()
    if type(content) is dict:
        return {_plain(key): _plain(child) for key, child in content.items()}
    if type(content) is list and isinstance(node, ListConfig):
        return [_plain(child) for child in content]
    return _plain(content)
