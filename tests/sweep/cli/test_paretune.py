"""The script `paretune`, also in a project that has packages of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = "import sys; sys.argv[0] = 'paretune'; from sweep.cli.paretune import main; main()"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As an installed script: the current folder is not on the path, and the program is."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With a package for each of our names, as a research repository may have, and a component of its own."""
    for name in ("sweep", "analysis", "conf"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('this is the package of the project')")
    (tmp_path / "own_metric.py").write_text(
        "from sweep.metrics.exact_match import ExactMatch\n\n\nclass Mine(ExactMatch):\n    pass\n"
    )
    return tmp_path


def test_help_and_version(tmp_path: Path):
    assert run(tmp_path, "--version").stdout == f"paretune {version('paretune')}\n"
    shown = run(tmp_path, "--help").stdout
    assert all(f"\n  {name} " in shown for name in ("sweep", "plan", "export", "evaluate", "analyze", "ui"))
    unknown = run(tmp_path, "analyse")
    assert unknown.returncode == 2
    assert "did you mean analyze?" in unknown.stderr


def test_messages_name_commands_as_they_are_typed(tmp_path: Path):
    assert "paretune plan -m experiment=llama3_qlora\n" in run(tmp_path, "plan", "--help").stdout
    assert "name one: paretune export study=quickstart" in run(tmp_path, "export").stderr


@pytest.mark.long
@pytest.mark.slow
def test_a_run_and_its_answer_in_a_project_with_the_same_names(project: Path, toy: list[str]):
    own = ["task.metrics.exact_match._target_=own_metric.Mine", "task.score=exact_match"]
    swept = run(project, "sweep", "-m", "study.name=mine", "variant=lora_r8,fft", *toy, *own)
    assert swept.returncode == 0, swept.stdout[-2000:] + swept.stderr[-2000:]
    answered = run(project, "analyze", "study=mine", "margin=0.1")
    assert answered.returncode == 0, answered.stdout[-2000:] + answered.stderr[-2000:]
    assert (project / "reports/mine/report.html").is_file()
