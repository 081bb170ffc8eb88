"""Who may import whom, and when. Read from the source: imports inside functions and for type checking count too."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = [path for folder in ("sweep", "analysis", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
# From the ground up. A package imports packages of lower lines, and those to its left in its own line.
SWEEP = [
    "core", "runtime",
    "processes", "hydra_compat", "tracking", "datasets", "metrics", "statistics", "variants", "meters",
    "tasks", "losses", "training", "models", "config",
    "memory", "diagnostics", "cli",
    "training_run", "launch", "deployment", "study",
    "plan", "export", "evaluate", "__main__",
]  # fmt: skip
ANALYSIS = ["formatting", "loading", "decision", "charts", "reporting", "pipeline", "ui", "__main__"]
# Of sweep, analysis imports what knows nothing of training.
SHARED = {"sweep.core", "sweep.cli", "sweep.tracking", "sweep.metrics", "sweep.statistics", "sweep.diagnostics"}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "mlflow", "optuna", "pandas", "matplotlib", "accelerate"}
# What `python -m sweep` imports before the config is known to be good.
LIGHT = [
    "sweep/__main__.py", "sweep/cli", "sweep/config", "sweep/core", "sweep/models", "sweep/tasks", "sweep/datasets",
    "sweep/metrics", "sweep/diagnostics", "sweep/variants", "sweep/losses", "sweep/training/options.py",
    "sweep/training/trainer_arguments.py", "sweep/tracking/options.py",
    "hydra_plugins", "analysis/__main__.py",
]  # fmt: skip


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports. With `top_level_only`, those that importing the file imports."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rooms(package: str, names: set[str]) -> set[str]:
    """The parts of a package that these names are in: its folders, and the files at its top."""
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


@pytest.mark.parametrize(("package", "order"), [("sweep", SWEEP), ("analysis", ANALYSIS)])
def test_folders_import_downwards_only(package: str, order: list[str]):
    """Thus no circle of folders exists either."""
    upwards = []
    for path in sorted((ROOT / package).rglob("*.py")):
        own = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in order, f"{named(path)}: give its folder a place in the order"
        here = order.index(own)
        upwards += [
            f"{named(path)} → {room}" for room in sorted(rooms(package, imports(path))) if order.index(room) > here
        ]
    assert upwards == []


def test_no_files_import_each_other_in_a_circle():
    """`from a.b import c` is an import of the file a/b/c.py where there is one, else of a.b."""
    modules = {named(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path for path in SOURCES}
    graph = {}
    for name, path in modules.items():
        found = imports(path) & modules.keys()
        files = {one for one in found if not any(other.startswith(f"{one}.") for other in found)}
        graph[name] = files - {name}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the files of a circle


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_libraries_stay_in_their_rooms(path: Path):
    names, place = imports(path), named(path)
    if place.startswith("sweep/"):
        above = {"pandas", "matplotlib", "analysis", "hydra_plugins"}
        drawing = {"analysis"} if place == "sweep/plan.py" else set()  # its picture, with a chart of the report
        assert not roots(names) & (above - drawing)
        assert "analysis" not in roots(imports(path, top_level_only=True))
    if place.startswith("analysis/"):
        assert not roots(names) & {"torch", "transformers", "peft", "bitsandbytes", "optuna", "accelerate"}
        assert {
            name for name in names if name.startswith("sweep.") and ".".join(name.split(".")[:2]) not in SHARED
        } == set()
    if "mlflow" in roots(names):
        assert place.startswith(("sweep/tracking/", "sweep/deployment/model_registry.py"))
    if "optuna" in roots(names):
        assert place.startswith("sweep/study/")
    if roots(names) & {"pynvml"}:
        assert place == "sweep/runtime/nvml.py"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_private_names_of_hydra_and_omegaconf_are_used_in_one_folder(path: Path):
    if named(path).startswith("sweep/hydra_compat/"):
        return
    private = [name for name in imports(path) if name.startswith(("hydra._", "omegaconf._", "hydra.core._"))]
    assert private == []


@pytest.mark.parametrize("place", LIGHT)
def test_configs_are_checked_before_anything_heavy_is_imported(place: str):
    where = ROOT / place
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where]
    assert files
    assert [path for path in files if roots(imports(path, top_level_only=True)) & HEAVY] == []


def test_files_can_be_seen_at_a_glance():
    long = {named(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 300}
    assert long == {}


@pytest.mark.parametrize(("package", "most"), [("sweep", 6), ("analysis", 4)])
def test_the_top_holds_the_commands(package: str, most: int):
    assert len([path for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]) <= most
