"""The commands of README and documentation compose, links lead somewhere, and the site builds."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, compose

from sweep.config.schema import parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.split("  #")[0].strip()
        for page in PAGES
        for line in re.findall(r"^(?:\w+=\S+ )?(python -m (?:sweep|analysis)\b.*)$", page.read_text(), re.M)
    }
)
TOP_CONFIGS = {"analysis": "analysis", "sweep.export": "export", "sweep.evaluate": "evaluate"}
# Values that need a plug-in or a package that is not here, and the folder of the reader's own presets.
ELSEWHERE = re.compile(r"submitit|--config-dir|^hydra\.(sweeper|launcher)\.|^plan\.|hydra/launcher|^compare=")


@pytest.fixture
def generate():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("generate")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_there_are_commands_and_the_first_one_stands_early():
    assert len(COMMANDS) >= 30
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("make ")) <= 30


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    for name in re.findall(r"[=,]([\w.]+\.(?:csv|tsv|jsonl?))\b", command):
        (tmp_path / name).touch()
    _, _, module, *arguments = shlex.split(command)
    if "--config-dir" in arguments:
        arguments = []  # of a folder that the page describes
    overrides = [text for text in arguments if not text.startswith("-") and not ELSEWHERE.search(text)]
    if module in TOP_CONFIGS:
        compose(*overrides, config_name=TOP_CONFIGS[module])
        return
    first = [re.sub(r"=(?:choice\(|tag\(log,interval\()?([^\[{,)]*),.*$", r"=\1", text) for text in overrides]
    parse(compose(*first))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_outside_of_the_site_lead_to_files(page: Path):
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_files_that_a_page_names_exist(page: Path):
    """A path is that of the repository, or counts from a package, or from a folder of components."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    named = {path for path in re.findall(r"`([\w/]+\.py)`", text) if not re.search(r"\bmine\b|my_package", path)}
    starts = [ROOT, ROOT / "sweep", ROOT / "sweep" / "variants", ROOT / "sweep" / "tasks"]
    assert {path for path in named if not any((start / path).is_file() for start in starts)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_exist(page: Path):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("preset", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_on_the_page_of_presets(preset: Path):
    text, name = (ROOT / "docs" / "conf.md").read_text(), preset.relative_to(ROOT / "conf")
    folder = len(name.parts) > 2 and f"{name.parts[0]}/{name.parts[1]}" in text
    assert folder or re.search(rf"[`,{{/ ]{preset.stem}[`,}}. ]", text), name


@dataclass
class _Options:
    known: int = 1
    """A number."""
    unknown: int = 2


def test_a_config_key_without_a_meaning_stops_the_build(generate):
    assert generate.meanings(_Options) == {"known": "A number."}
    with pytest.raises(generate.Undocumented, match=r"mine\.unknown"):
        generate._table(_Options, "mine", {})


def test_a_type_is_shown_as_a_reader_of_yaml_knows_it(generate):
    from typing import Annotated, Literal

    from annotated_types import Ge, Lt, MinLen

    assert generate.type_name(Annotated[int, Ge(1)] | None) == "whole number ≥ 1, or null"
    assert generate.type_name(Annotated[float, Ge(0), Lt(1)]) == "number ≥ 0, < 1"
    assert generate.type_name(Annotated[str, MinLen(1)]) == "text"
    assert generate.type_name(Literal["a", "b"]) == "`a`, `b`"
    assert generate.type_name(list[str]) == "list of text"


def test_the_reference_has_every_key_of_a_composed_run(generate):
    """The composed config is an independent list of keys."""
    page = generate.configuration()

    def missing(node: dict, path: str) -> list[str]:
        found = []
        for key, value in node.items():
            place = re.sub(r"^task\.metrics\.\w+", "task.metrics.NAME", f"{path}{key}")
            if isinstance(value, dict):
                found += missing(value, f"{path}{key}.")
            elif key != "_target_" and f"| `{place}` |" not in page:
                found.append(place)
        return found

    runs = [compose(f"variant={variant}") for variant in ("fft", "qlora_r16", "ia3", "prefix_tuning", "bitfit")]
    composed = [*runs, compose("task=classification", "data@task.data=hub", "task.data.path=a/b")]
    lacking = {place for run in composed for place in missing(run, "")}
    assert {
        place for place in lacking if not place.startswith(("model.learning_rates.", "task.data.columns."))
    } == set()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    configuration = (tmp_path / "site" / "configuration" / "index.html").read_text()
    assert "train.max_steps" in configuration
    assert "hydra.sweeper.n_trials" in configuration
    assert "sweep/training_run.py" in (tmp_path / "site" / "architecture" / "index.html").read_text()
    assert (tmp_path / "site" / "benchmarks" / "results" / "quickstart" / "settings.csv").is_file()
