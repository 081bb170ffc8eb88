"""The user's own components: a digest of their source, so that runs with other code count as runs of other conditions.

Code of paretune and of installed distributions has a version. A file of the user has none: without a digest, a metric
that was changed would look like the one that scored the earlier runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import site
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from sweep.core.construction import targets
from sweep.core.paths import ROOT

_OURS = ("sweep", "analysis", "hydra_plugins", "conf")


def digests(config: Any) -> dict[str, str]:
    """`code.<module>` → twelve hexadecimal digits, for each module of the user's own that a `_target_` in `config`
    names. Of a package, all its Python files count."""
    modules = {str(target).rpartition(".")[0] for _, target in targets(config)}
    return {f"code.{name}": digest for name in sorted(modules) if (digest := _digest(_files(name)))}


def _digest(files: Iterable[Path]) -> str:
    contents = [file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12] if contents else ""


def _files(module: str) -> list[Path]:
    """The source files of a module, or of a package; none if it is not the user's own, or cannot be found."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    file = Path(spec.origin).resolve()
    if any(file.is_relative_to(folder) for folder in _installed()):
        return []
    return sorted(file.parent.rglob("*.py")) if spec.submodule_search_locations else [file]


@cache
def _installed() -> tuple[Path, ...]:
    """The folders of Python's library, of installed distributions and of paretune."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [*map(sysconfig.get_path, kinds), *site.getsitepackages(), site.getusersitepackages()]
    return (*(Path(folder).resolve() for folder in folders), *((ROOT / name).resolve() for name in _OURS))
