"""Who may import whom, and when. Read from the source, so that an import inside a function counts as late."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = [path for folder in ("sweep", "analysis", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
# Of sweep, analysis may know what knows nothing of training.
LEAVES = {"sweep.record", "sweep.errors", "sweep.redact", "sweep.preflight", "sweep.cli"}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "mlflow", "optuna", "pandas", "matplotlib", "accelerate"}
# A command over both packages: it draws what it tells, with the charts of the report.
PLAN = "sweep/plan.py"
# What `python -m sweep` imports before the config is known to be good.
LIGHT = [
    "sweep/__main__.py", "sweep/cli.py", "sweep/config.py", "sweep/errors.py", "sweep/preflight.py", "sweep/redact.py",
    "sweep/record.py", "sweep/report.py", "sweep/study/setting.py", "sweep/models", "sweep/tasks", "sweep/datasets",
    "sweep/metrics", "sweep/variants", "hydra_plugins", "analysis/__main__.py",
]  # fmt: skip


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports. What stands under TYPE_CHECKING is not imported."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path: Path):
    names = imports(path)
    package = path.relative_to(ROOT).parts[0]
    if package == "sweep":
        allowed = {"analysis"} if str(path.relative_to(ROOT)) == PLAN else set()
        assert not roots(names) & ({"pandas", "matplotlib", "analysis", "hydra_plugins"} - allowed)
        assert "analysis" not in roots(imports(path, top_level_only=True))
    if package == "analysis":
        assert not roots(names) & {"torch", "transformers", "peft", "bitsandbytes", "optuna", "accelerate"}
        modules = {name for name in names if name.startswith("sweep.")}
        assert {name for name in modules if ".".join(name.split(".")[:2]) not in LEAVES} == set()
    if "mlflow" in roots(names):
        assert str(path.relative_to(ROOT)) in ("sweep/tracking.py", "sweep/deployment/registry.py", "analysis/load.py")
    if "optuna" in roots(names):
        assert str(path.relative_to(ROOT)).startswith("sweep/study/")


@pytest.mark.parametrize("place", LIGHT)
def test_configs_are_checked_before_anything_heavy_is_imported(place: str):
    where = ROOT / place
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where]
    assert files
    assert [path for path in files if roots(imports(path, top_level_only=True)) & HEAVY] == []


def test_files_can_be_seen_at_a_glance():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300}
    assert long == {}
