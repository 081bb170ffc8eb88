"""Which code a file of a shared store may name. Whoever may write the store writes the file, too, so the command that
reads it decides: this package's own classes, and those of packages that the command names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

OWN = "sweep"


def untrusted_package(target: object, packages: Collection[str]) -> str | None:
    """The package of the class path `target` where it is neither ours nor one of `packages`; else None. A package
    includes what is in it: `mine` allows `mine.metrics.Last`."""
    path = str(target)
    trusted = any(path.startswith(f"{package}.") for package in (OWN, *packages))
    return None if trusted else path.partition(".")[0]


def class_paths(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of each `_target_` in a nested container."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            below = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield below, value
            yield from class_paths(value, below)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from class_paths(value, f"{key}.{number}")
