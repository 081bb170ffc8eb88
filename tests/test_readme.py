"""The README's commands compose, and its tree is the one on disk."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, compose

from sweep.config import parse

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


def test_the_tree_is_the_one_on_disk():
    block = re.search(r"```\n(conf/.*?)```", README, re.S)
    assert block
    described, folder = set(), ""
    for line in block[1].splitlines():
        name = line.split("  ")[0] if not line.startswith(" ") else line.strip().split("  ")[0]
        depth = len(line) - len(line.lstrip())
        if name.endswith("/"):
            folder = name if depth == 0 else folder.split("/")[0] + "/" + name
        elif name:
            described |= {(folder if depth else "") + part for part in name.split(" ")}
    on_disk = {
        str(path.relative_to(ROOT))
        for package in ("sweep", "analysis", "hydra_plugins")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert on_disk - described == set()
    assert {name for name in described if name.endswith(".py")} - on_disk == set()
