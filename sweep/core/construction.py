"""A class or function of any package, named by `_target_`: a callback, an optimizer, a schedule of the learning rate.

Such classes come from libraries that are slow to import. So a config is checked without them, and `check` imports them
before the first run.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.core.errors import UserError, alternatives, first_line

TARGET = "_target_"
FIND_IT = "start the command in the folder of the package, set PYTHONPATH, or install the package"


@dataclass(frozen=True, kw_only=True)
class Construction:
    """What `_target_` names, and the keyword arguments that the config gives it."""

    target: str
    """Dotted name of a class or a function."""
    options: Mapping[str, Any]
    """Its keyword arguments."""

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return self.callable()(*arguments, **self.options, **more)

    def callable(self) -> Callable[..., Any]:
        """The class or the function. Raises UserError where it cannot be imported."""
        module, _, name = self.target.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
        except Exception as error:  # the code of its author runs here
            raise UserError(f"{self.target} cannot be imported: {first_line(error)}; {FIND_IT}") from error

    def accepts(self, name: str) -> bool:
        """Whether it has a parameter of this name."""
        return name in self._parameters()

    def require_options(self, key: str) -> None:
        """Raises UserError for an option that it has no parameter for."""
        known = self._parameters()
        if any(kind is inspect.Parameter.VAR_KEYWORD for kind in known.values()):
            return
        for name in self.options:
            if name not in known:
                raise UserError(f"{key}.{name}: {self.target} has no such parameter; {alternatives(name, list(known))}")

    def _parameters(self) -> dict[str, Any]:
        try:
            return {name: one.kind for name, one in inspect.signature(self.callable()).parameters.items()}
        except (TypeError, ValueError):  # written in C, without a signature
            return {"options": inspect.Parameter.VAR_KEYWORD}


def construction(node: Mapping[str, Any]) -> tuple[Construction | None, str]:
    """The construction that a node of a config describes, or None and what is wrong with it. It imports nothing but
    parents of the package."""
    values = dict(node)
    target = values.pop(TARGET, None)
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        return None, "needs _target_, the dotted name of a class such as my_package.module.Name"
    root = target.partition(".")[0]
    if importlib.util.find_spec(root) is None:
        return None, f"cannot be imported: No module named {root!r}; {FIND_IT}"
    return Construction(target=target, options=values), ""


def targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of each `_target_` in a config, at any depth."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            below = f"{key}.{name}" if key else str(name)
            if name == TARGET:
                yield below, value
            yield from targets(value, below)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from targets(value, f"{key}.{number}")
