"""Which code a file of a shared store may name. Whoever may write the store writes the file, too, so the command that
reads it decides: this package's own classes, and those of packages that the command names."""

from __future__ import annotations

from collections.abc import Collection

OWN = "sweep"


def untrusted_package(target: object, packages: Collection[str]) -> str | None:
    """The package of the class path `target` where it is neither ours nor one of `packages`; else None. A package
    includes what is in it: `mine` allows `mine.metrics.Last`."""
    path = str(target)
    trusted = any(path.startswith(f"{package}.") for package in (OWN, *packages))
    return None if trusted else path.partition(".")[0]
