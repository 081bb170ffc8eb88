"""Pages and parts of pages that are made from the code. `hooks.py` puts them into the site.

A config key without a meaning, and a module without a docstring, stop the build.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import subprocess
import sys
import tempfile
import textwrap
import types
import typing
from abc import ABC
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import annotated_types
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
COMMANDS = ("sweep", "sweep.plan", "sweep.export", "sweep.evaluate", "analysis", "analysis.ui")
PACKAGES = ("sweep", "hydra_plugins", "analysis", "benchmarks")
COMPONENTS = ("model", "task", "data", "metric", "variant", "loss")
PLACES = {"data": "task.data", "metric": "task.metrics.NAME", "loss": "train.loss"}  # of a group's keys in the config
# Commands whose options are a YAML file: the meaning of an option is the comment behind it.
OPTION_FILES = {"plan": "sweep.plan", "analysis": "analysis", "export": "sweep.export", "evaluate": "sweep.evaluate"}


INTRODUCTION = """# Configuration

This page is made from the code. Each key is an override: `python -m sweep train.max_steps=100`.

A component (`model`, `task`, `task.data`, `task.metrics.NAME`, `variant`, `train.loss`) is a class with its own keys.
[Presets](conf.md) name the class and set its keys. *required* means that a preset, or you, must give a value.
"""
MEASUREMENTS_INTRODUCTION = """# Measurements

This page is made from `sweep/core/measurements.py`. A record has one value for each key that was measured. A value that
was not measured is absent. A part in angle brackets, such as `<phase>`, stands for any name; phases are `load`, `train`
and `eval`.
"""
FACTS_INTRODUCTION = """## Facts

Facts are text. MLflow has them as tags of the run.
"""
COMMAND_LINE_INTRODUCTION = """# Command line

This page has the output of each command for `--help`. [Configuration](configuration.md) has all keys.
"""


class Undocumented(Exception):
    """A key, a module or a measurement has no meaning."""


def configuration() -> str:
    """The page of all config keys: key, type, default, meaning."""
    from hydra_plugins.paretune.launcher import ParetuneLauncherConf
    from hydra_plugins.paretune.sweeper import ParetuneSweeperConf
    from sweep.config.schema import RunConfig

    base = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"), resolve=False)
    stores = OmegaConf.to_container(OmegaConf.load(CONF / "tracking" / "sqlite.yaml"), resolve=False)
    parts = [
        INTRODUCTION,
        "## A run\n",
        _table(RunConfig, "", {**_chosen(base["defaults"]), "seed": base["seed"]}),
    ]
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    for group in ("train", "study", "tracking", "meters"):
        parts += [f"## `{group}`\n\n{_summary(hints[group])}\n", _table(hints[group], group, base.get(group, stores))]
    for group in COMPONENTS:
        parts += _component_group(group)
    for name, cls in (("sweeper", ParetuneSweeperConf), ("launcher", ParetuneLauncherConf)):
        parts += [f"## `hydra.{name}`\n", _table(cls, f"hydra.{name}", {})]
    parts += [_options(name, command) for name, command in OPTION_FILES.items()]
    return "\n".join(parts)


def _component_group(group: str) -> Iterator[str]:
    classes = component_classes(group)
    base = next(c for c in reversed(classes[0].__mro__) if ABC in c.__mro__ and is_dataclass(c))
    place = PLACES.get(group, group)
    yield f"## `{group}`\n\n{_summary(base)}\n"
    common = [f.name for f in fields(base) if f.init]
    if common:
        yield f"Keys of all classes:\n\n{_table(base, place, {})}"
    for cls in classes:
        target = f"{cls.__module__}.{cls.__name__}"
        presets = [file for file in sorted((CONF / group).glob("*.yaml")) if _target(file) == target]
        named = ", ".join(f"`{file.stem}`" for file in presets)
        yield f"### `{cls.__name__}`\n\n{_summary(cls)}\n\nClass: `{target}`. Presets: {named}, and presets of these.\n"
        parents = [parent for parent in cls.__mro__[1:] if parent in classes]
        inherited = {*common, *(f.name for parent in parents for f in fields(parent))}
        if parents:
            yield f"All keys of [`{parents[0].__name__}`](#{parents[0].__name__.lower()}).\n"
        if own := [f.name for f in fields(cls) if f.init and f.name not in inherited]:
            only = OmegaConf.to_container(OmegaConf.load(presets[0]), resolve=False) if len(presets) == 1 else {}
            yield _table(cls, place, only, own)


def component_classes(group: str) -> list[type]:
    """The classes that presets of a group name as `_target_`, by name."""
    found = {}
    for file in sorted((CONF / group).rglob("*.yaml")):
        if target := _target(file):
            module, _, name = target.rpartition(".")
            found[target] = getattr(importlib.import_module(module), name)
    return [found[target] for target in sorted(found, key=lambda target: target.rpartition(".")[2])]


def _target(file: Path) -> str | None:
    named = re.search(r"^_target_: *(\S+)", file.read_text(), re.MULTILINE)
    return named[1] if named else None


def _chosen(entries: list[Any]) -> dict[str, str]:
    """The preset of each group in a defaults list."""
    return {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items() if value}


def _summary(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _table(cls: type, prefix: str, defaults: dict[str, Any], names: list[str] | None = None) -> str:
    hints, known = typing.get_type_hints(cls, include_extras=True), meanings(cls)
    rows = []
    for spec in fields(cls):
        if not spec.init or spec.name.startswith("_") or spec.name == "defaults":
            continue
        if names is not None and spec.name not in names:
            continue
        key = f"{prefix}.{spec.name}" if prefix else spec.name
        if spec.name not in known:
            raise Undocumented(f"{key} ({cls.__name__}) has no meaning: write a string below the field")
        if spec.name in defaults:
            default = _shown(defaults[spec.name])
        elif spec.default is not MISSING:
            default = _shown(spec.default)
        elif spec.default_factory is not MISSING:
            default = _shown(spec.default_factory())
        else:
            default = "see below" if is_dataclass(hints[spec.name]) and not prefix else "*required*"
        rows.append((f"`{key}`", type_name(hints[spec.name]), default, known[spec.name]))
    return _markdown(("key", "type", "default", "meaning"), rows)


def meanings(cls: type) -> dict[str, str]:
    """The string below each field, by the field's name, also of the classes that `cls` derives from."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if not is_dataclass(part):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


_BOUNDS = {annotated_types.Ge: ("≥", "ge"), annotated_types.Gt: (">", "gt"), annotated_types.Le: ("≤", "le"),
           annotated_types.Lt: ("<", "lt")}  # fmt: skip
_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any"}


def type_name(hint: Any) -> str:
    """A type as a reader of YAML knows it: `Annotated[int, Ge(1)] | None` is "whole number ≥ 1, or null"."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    if getattr(hint, "__name__", "") == "Construction":
        return "class by `_target_`"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        signs = [(*_BOUNDS[type(rule)], rule) for rule in args[1:] if type(rule) in _BOUNDS]
        limits = [f"{sign} {getattr(rule, name)}" for sign, name, rule in signs]
        return f"{type_name(args[0])} {', '.join(limits)}".strip()
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(type_name(arg) for arg in args)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (list, tuple):
        return f"list of {type_name(args[0])}" if args else "list"
    if origin is dict:
        return f"mapping to {type_name(args[1])}"
    return _link(hint) if is_dataclass(hint) else str(hint)


def _link(cls: type) -> str:
    name = {"Dataset": "data"}.get(cls.__name__, cls.__name__.lower())
    in_page = name in (*COMPONENTS, "train", "study", "tracking", "meters")
    return f"[{name}](#{name})" if in_page else f"`{cls.__module__}.{cls.__name__}`"


def _options(name: str, command: str) -> str:
    """Options of another command: the lines `key: default  # meaning` of its YAML file."""
    rows = []
    for line in (CONF / f"{name}.yaml").read_text().splitlines():
        found = re.match(r"([a-z_]+): *(.*?)\s*(?:# *(.*))?$", line)
        if not found or found[1] in ("defaults", "hydra"):
            continue
        if not found[3]:
            raise Undocumented(f"conf/{name}.yaml: {found[1]} has no meaning: write a comment behind it")
        key = f"plan.{found[1]}" if name == "plan" else found[1]
        rows.append((f"`{key}`", "*required*" if found[2] == "???" else f"`{found[2]}`", found[3]))
    return f"## `python -m {command}`\n\n{_markdown(('key', 'default', 'meaning'), rows)}"


def _shown(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, dict) and not any(value.values()):
        return "`{}`"
    return "*required*" if value == "???" else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def measurements() -> str:
    """The page of all keys of a record, with unit and meaning, and of its facts."""
    from sweep.core.measurements import FACTS, MEASUREMENTS

    if vague := [one.key for one in (*MEASUREMENTS, *FACTS) if not one.meaning]:
        raise Undocumented(f"sweep/core/measurements.py: {', '.join(vague)}: no meaning")
    figures = [(f"`{one.key}`", one.unit, one.meaning) for one in MEASUREMENTS]
    facts = [(f"`{one.key}`", one.meaning) for one in FACTS]
    tables = _markdown(("key", "unit", "meaning"), figures), _markdown(("key", "meaning"), facts)
    return f"{MEASUREMENTS_INTRODUCTION}\n{tables[0]}\n{FACTS_INTRODUCTION}\n{tables[1]}"


def files() -> str:
    """All modules, one table for each package, with the first sentence of each docstring."""
    parts = []
    for package in PACKAGES:
        rows = []
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if not text.strip():
                continue
            docstring = ast.get_docstring(ast.parse(text))
            if not docstring:
                raise Undocumented(f"{path.relative_to(ROOT)} has no docstring")
            rows.append((f"`{path.relative_to(ROOT)}`", " ".join(docstring.partition("\n\n")[0].split())))
        parts.append(f"### Files of `{package}/`\n\n{_markdown(('file', 'role'), rows)}")
    return "\n".join(parts)


def command_line() -> str:
    """The page of all commands: what each prints for --help."""
    parts = [COMMAND_LINE_INTRODUCTION]
    with tempfile.TemporaryDirectory() as folder:
        for module in COMMANDS:
            ran = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=folder, capture_output=True, text=True, check=True
            )
            text = re.sub(r"\n{2,}Powered by Hydra.*", "", ran.stdout, flags=re.DOTALL).rstrip()
            parts.append(f"## `python -m {module}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)
