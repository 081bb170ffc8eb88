"""Where exports go, and that one never replaces another without a word."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep.core.errors import UserError
from sweep.deployment.exporter import _require_replaceable, default_folder


def test_each_form_of_an_export_has_its_own_folder():
    def folder(adapter: bool, *form: object) -> str:
        variant = SimpleNamespace(is_adapter=adapter)
        record = SimpleNamespace(setting="lora r=8", seed=1, study="s/t")
        return str(default_folder(SimpleNamespace(record=record, config=SimpleNamespace(variant=variant)), *form))

    assert folder(True) == folder(True, False, "bf16") == "exports/s/t/lora-r-8-seed1"
    assert folder(True, True) == "exports/s/t/lora-r-8-seed1-merged"
    assert folder(True, True, "bf16") == "exports/s/t/lora-r-8-seed1-merged-bf16"
    assert folder(False, True) == folder(False) == "exports/s/t/lora-r-8-seed1"
    assert folder(False, False, "fp16") == "exports/s/t/lora-r-8-seed1-fp16"


def test_only_an_export_of_the_same_run_in_the_same_form_is_replaced(tmp_path: Path):
    _require_replaceable(tmp_path / "new", "run", adapter=True)
    _require_replaceable(tmp_path, "run", adapter=True)
    manifest = {"run_id": "run", "adapter": True, "setting": "lora", "seed": 0}
    (tmp_path / "export.json").write_text(json.dumps(manifest))
    _require_replaceable(tmp_path, "run", adapter=True)
    with pytest.raises(UserError, match=r"has the adapter of lora with seed 0 \(run run\), which this export would"):
        _require_replaceable(tmp_path, "run", adapter=False)
    with pytest.raises(UserError, match="which this export would replace"):
        _require_replaceable(tmp_path, "other", adapter=True)
    (tmp_path / "export.json").unlink()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="has other files than an export"):
        _require_replaceable(tmp_path, "run", adapter=True)
