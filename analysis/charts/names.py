"""Names of settings as a chart has room for them: without what all of them share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_LONGEST = 32  # characters
_LONG = 16  # if no name is longer, all stay as they are
_PARTS = re.compile(r"[\w.]+=[^\s,/]*|[^\W_]+(?:\.[^\W_]+)*|[\W_]")  # keys with values, words, and separators
_JOINTS = " /_-=:,"


def shorten(name: str, longest: int = _LONGEST) -> str:
    """A name that leaves room for others: its middle goes, since names of a study differ at the ends."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


class Short(NamedTuple):
    """`names` maps each name to its short form; `shared` are the words that were taken away."""

    names: dict[str, str]
    shared: list[str]


def without_shared(names: Sequence[str]) -> Short:
    """The names without the words that all have in common: "lora/llama-3B-rank32" → "lora/rank32". They stay as they
    are if they are short, or if they would not differ any more. A key stays with its value: "r=8"."""
    found = Short(dict(zip(names, names, strict=True)), [])
    if len(found.names) < 2 or max(map(len, found.names)) <= _LONG:
        return found
    while (run := _longest_shared(list(found.names.values()))) is not None:
        fewer = {name: _cut(text, run) for name, text in found.names.items()}
        if len(set(fewer.values())) < len(fewer) or not all(fewer.values()):
            break
        found = Short(fewer, [*found.shared, run])
    return found


def _longest_shared(names: Sequence[str]) -> str | None:
    """The longest run of whole words that every name contains, with at least one letter in it."""
    parts = _PARTS.findall(min(names, key=len))
    runs = {"".join(parts[i:j]).strip(_JOINTS) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    shared = [run for run in runs if re.search(r"[^\W\d_]", run) and all(_places(name, run) for name in names)]
    return max(shared, key=lambda run: (len(run), run), default=None)


def _places(name: str, run: str) -> re.Match[str] | None:
    return re.search(rf"(?<![^\W_]){re.escape(run)}(?![^\W_]|[\w.]*=)", name)


def _cut(name: str, run: str) -> str:
    """Without the run, and without one of the two separators around it."""
    found = _places(name, run)
    assert found is not None
    before, after = name[: found.start()], name[found.end() :]
    if before and after and before[-1] in _JOINTS and after[0] in _JOINTS:
        after = after[1:]
    return f"{before}{after}".strip(_JOINTS)
