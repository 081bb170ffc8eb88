"""The digest of the user's own classes: other code is another condition, or another setting."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from sweep.core import own_code, provenance
from sweep.core.setting import setting_digest


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "metric.py").write_text("FACTOR = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in ("own_package", "own_package.metric"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another test, in another folder
    return tmp_path / "own_package"


def config(*targets: str, group: str = "task") -> dict:
    return {
        group: {"metrics": {str(i): {"_target_": target} for i, target in enumerate(targets)}},
        "variant": {"name": "v"},
    }


def test_a_changed_file_is_another_condition(mine: Path):
    def conditions() -> dict[str, str]:
        return provenance.conditions(config("own_package.metric.Mine"), {}, [], [])

    before = conditions()
    assert before == conditions()
    assert len(before["code.own_package.metric"]) == 12
    (mine / "metric.py").write_text("FACTOR = 2\n")
    after = conditions()
    assert {key for key in before if before[key] != after[key]} == {"code.own_package.metric"}


def test_a_class_that_a_package_reexports_counts_with_all_files_of_the_package(mine: Path):
    before = own_code.digests(config("own_package.Mine"))
    (mine / "metric.py").write_text("FACTOR = 2\n")
    assert own_code.digests(config("own_package.Mine")) != before != {}


def test_lists_are_searched_too(mine: Path):
    plain = {"train": {"callbacks": [{"_target_": "own_package.metric.Mine"}]}}
    assert set(own_code.digests(plain)) == {"code.own_package.metric"}


def test_paretune_installed_packages_and_unknown_modules_have_no_digest():
    names = ("sweep.metrics.accuracy.Accuracy", "torch.optim.SGD", "json.JSONDecoder", "no.such.Module", "nothing")
    assert own_code.digests(config(*names)) == {}


def test_the_code_of_a_variant_belongs_to_its_setting_and_not_to_the_conditions(mine: Path):
    plain = {"variant": {"name": "v", "_target_": "own_package.metric.Mine"}}
    before = setting_digest(plain, [])
    assert not any(key.startswith("code.") for key in provenance.conditions(plain, {}, [], []))
    (mine / "metric.py").write_text("FACTOR = 2\n")
    assert setting_digest(plain, []) != before
