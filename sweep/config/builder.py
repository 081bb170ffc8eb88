"""Plain containers to dataclasses, with all faults reported together.

A field with an abstract class is a component. Its `_target_` names the class. The module of the class imports nothing
heavy at its top.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import typing
from abc import ABC
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sweep.core.construction import FIND_IT, Construction, construction
from sweep.core.errors import Fault, alternatives
from sweep.core.familiar_names import data_line

INVALID = object()


def build(cls: type, node: Any, path: str, faults: list[Fault]) -> Any:
    """An instance of the dataclass `cls`, or of the class that `node._target_` names if `cls` is abstract."""
    if not isinstance(node, Mapping):
        line = f": {data_line(node)}" if path == "task.data" and isinstance(node, str) else ""
        faults.append(Fault(path, _show(node), f"must be a group of keys; choose one of its presets{line}"))
        return INVALID
    values = dict(node)
    if _is_component(cls):
        cls = _target(cls, values.pop("_target_", None), path, faults)
        if cls is None:
            return INVALID
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {f.name: f for f in fields(cls) if f.init}
    faults.extend(
        Fault(_join(path, key), _show(values[key]), f"unknown key; {alternatives(key, sorted(known))}")
        for key in values
        if key not in known
    )
    arguments: dict[str, Any] = {}
    for key, spec in known.items():
        if key in values:
            arguments[key] = _value(hints[key], values[key], _join(path, key), faults)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            faults.append(Fault(_join(path, key), "", "is missing; give it a value"))
            arguments[key] = INVALID
    if any(value is INVALID for value in arguments.values()):
        return INVALID
    built = cls(**arguments)
    if hasattr(built, "faults"):
        for key, message in built.faults():
            faults.append(Fault(_join(path, key), _show(getattr(built, key)), message))
    return built


def _value(hint: Any, value: Any, path: str, faults: list[Fault]) -> Any:
    """One field: a nested dataclass, a mapping of components, or a plain value checked by pydantic, strictly."""
    if hint is Any:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        faults.append(Fault(path, str(value), "must be a finite number"))
        return INVALID
    if is_dataclass(hint) or _is_component(hint):
        return build(hint, value, path, faults)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if Construction in args and (origin is list or isinstance(value, Mapping)):
        return _constructions(value, path, faults) if origin is list else _construction(value, path, faults)
    if Construction in args:
        hint = typing.Union[tuple(arg for arg in args if arg is not Construction)]  # noqa: UP007
    if args and _is_component(args[0]) and args[1:] == (type(None),):
        return None if value is None else build(args[0], value, path, faults)
    if origin is dict and _is_component(args[1]):
        if not isinstance(value, Mapping):
            faults.append(Fault(path, _show(value), "must map names to components"))
            return INVALID
        built = {name: build(args[1], node, _join(path, name), faults) for name, node in value.items()}
        return INVALID if any(item is INVALID for item in built.values()) else built
    try:
        # Through JSON: only there strict mode accepts lists, and still refuses "8" and 8.5 for an int.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        rules = [_rule(e) for e in error.errors() if e["type"] != "none_required"] or ["must be null"]
        faults.append(Fault(path, _show(value), "; or ".join(dict.fromkeys(rules))))
        return INVALID


def _constructions(value: Any, path: str, faults: list[Fault]) -> Any:
    if not isinstance(value, list):
        faults.append(Fault(path, _show(value), "must be a list: [{_target_: my_package.module.Name}]"))
        return INVALID
    built = [_construction(node, f"{path}[{index}]", faults) for index, node in enumerate(value)]
    return INVALID if any(item is INVALID for item in built) else built


def _construction(node: Any, path: str, faults: list[Fault]) -> Any:
    built, fault = construction(node) if isinstance(node, Mapping) else (None, "needs _target_, the name of a class")
    if built is None:
        faults.append(Fault(path, _show(node), fault))
    return INVALID if built is None else built


def _is_component(hint: Any) -> bool:
    """Whether a preset's `_target_` names the class. `issubclass` is not enough: some libraries register `int` with an
    abstract class, and `int` then counts as a subclass of ABC."""
    return inspect.isclass(hint) and ABC in hint.__mro__


def _target(base: type, target: Any, path: str, faults: list[Fault]) -> type | None:
    """The class that `_target_` names, if it derives from `base`."""
    key = _join(path, "_target_")
    if not isinstance(target, str):
        faults.append(Fault(key, _show(target), f"must name a class of {base.__module__}, such as a preset does"))
        return None
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        where = f"; {FIND_IT}" if isinstance(error, ModuleNotFoundError) else ""
        faults.append(Fault(key, target, f"cannot be imported: {error}{where}"))
        return None
    if not (inspect.isclass(found) and issubclass(found, base) and is_dataclass(found)):
        faults.append(Fault(key, target, f"is not a {base.__name__}; derive a dataclass from {base.__module__}"))
        return None
    if inspect.isabstract(found):
        faults.append(Fault(key, target, "is abstract; name one of its families"))
        return None
    return found


_RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
}


def _rule(error: Mapping[str, Any]) -> str:
    template = _RULES.get(error["type"])
    return template.format(**error.get("ctx", {})) if template else str(error["msg"])


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


def _show(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
