"""The Python examples of the documentation run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python-api.md").read_text(), re.M | re.S)


@pytest.mark.long
@pytest.mark.slow
def test_the_examples_of_the_python_api_run_as_one_script(tiny_checkpoint: Path, tmp_path: Path):
    """With a tiny checkpoint as base, since the embedded base takes a minute to build."""
    tiny = f'"model=pretrained", "model.path={tiny_checkpoint}", "task.max_new_tokens=4", '
    text, lists = re.subn(r'\[\s*(?="(?:variant|study\.name)=)', f"[{tiny}", "\n".join(EXAMPLES))
    assert lists == 3
    script = tmp_path / "example.py"
    script.write_text(text)
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, env=_environment(), check=False
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert "lora_r8 r=2" in ran.stdout
    assert (tmp_path / "mine.png").stat().st_size > 5000


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_importing_the_packages_imports_nothing_heavy():
    heavy = "torch, pandas, mlflow, optuna, matplotlib, hydra"
    code = f"import sys, sweep, analysis; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=True)
    assert ran.stdout.strip() == "[]"
