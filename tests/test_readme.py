"""The README's commands compose, and its tree is the one on disk."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, compose

from sweep.config.schema import parse

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip() for line in re.findall(r"^(?:\$ )?(python -m (?:sweep|analysis)\b.*)$", README, re.M)
]
OTHERS = {"analysis": "analysis", "sweep.export": "export", "sweep.evaluate": "evaluate"}  # their top configs


def test_there_are_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"=(\w+\.(?:csv|tsv|json))\b", command):
        (tmp_path / name).touch()
    _, _, module, *arguments = shlex.split(command)
    overrides = [a for a in arguments if not a.startswith(("-", "plan."))]
    if module in OTHERS:
        compose(*overrides, config_name=OTHERS[module])
        return
    first = [re.sub(r"=(?:choice\(|tag\(log,interval\()?([^\[,)]*),.*$", r"=\1", override) for override in overrides]
    parse(compose(*first))


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
