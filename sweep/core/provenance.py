"""The versions, commit and command of a run, and the fingerprint of its conditions."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sweep.core import own_code, program, redaction
from sweep.core.paths import ROOT

# Their versions change results, so they are conditions.
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
# Parts of a config that may differ between the runs of a study: the variant, the replicate, and where files are stored.
NOT_CONDITIONS = ("variant", "seed", "study", "tracking", "meters")


def versions() -> dict[str, str]:
    """Versions of Python, of paretune, and of each library that changes results. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in ("paretune", *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of this code, with "+changes" if the work tree differs from it; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return f"{head}+changes" if git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def command() -> str:
    """The command line of this program, for a repetition. Credentials are masked."""
    words = program.words() or Path(sys.argv[0]).name
    return redaction.text(f"{words} {shlex.join(sys.argv[1:])}".strip())


def conditions(
    config: Mapping[str, Any], facts: Mapping[str, str], swept: Iterable[str], location_keys: Iterable[str]
) -> dict[str, str]:
    """Everything that is fixed during a study, flat: key → value as text.

    `facts` are of the machine: device, resolved precision, digest of the base model. The user's own classes count with
    the digest of their source. Left out are keys that the study
    varies (`swept`), and those that say where something is, and not what it is (`location_keys`).
    """
    left_out = {*swept, *location_keys}
    fixed = {key: value for key, value in config.items() if key not in NOT_CONDITIONS}
    flat = {key: value for key, value in flatten(fixed).items() if key not in left_out}
    named_versions = {f"version.{name}": version for name, version in versions().items() if name != "python"}
    return dict(sorted({**flat, **facts, **named_versions, **own_code.digests(fixed)}.items()))


def fingerprint(values: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits, equal if all values are equal."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:12]


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"train": {"max_steps": 3}} → {"train.max_steps": "3"}."""
    flat: dict[str, str] = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = str(value)
    return flat
