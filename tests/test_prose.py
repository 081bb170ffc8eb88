"""Figurative phrases that a non-native reader cannot look up do not occur."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

PLACES = ("README.md", "CONTRIBUTING.md", "docs", "conf", "sweep", "analysis", "hydra_plugins", "benchmarks")
PHRASES = (
    "told", "foretold", "foretell", "mend", "beside", "word for word", "learnt by heart", "cannot be had", "at hand",
    "out of reach", "in good order", "in vain", "begins at random", "the bar", "literal rule", "knows no",
)  # fmt: skip
PATTERN = re.compile(rf"\b({'|'.join(PHRASES)})\b", re.IGNORECASE)


def _files() -> list[Path]:
    found = [ROOT / place for place in PLACES if (ROOT / place).is_file()]
    for place in PLACES:
        found += [path for path in (ROOT / place).rglob("*") if path.suffix in (".py", ".md", ".yaml", ".j2")]
    return sorted(found)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figurative_phrase_occurs(path: Path):
    lines = path.read_text().splitlines()
    assert [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if PATTERN.search(line)] == []
