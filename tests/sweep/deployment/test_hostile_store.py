"""An export from a store that others write runs no code, and writes nowhere, that its own command does not name."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from conftest import compose
from omegaconf import OmegaConf
from store import Written, record

from sweep.core.artifacts import CONFIG_FILE, EXAMPLES_FILE, WEIGHTS_FOLDER
from sweep.core.errors import UserError
from sweep.deployment import exporter
from sweep.deployment.stored_run import Given, StoredRun, find
from sweep.export import validate

pytestmark = pytest.mark.slow


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path whose import leaves a file, as hostile code would."""
    trace = tmp_path / "trace"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "victim_module.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass X: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    sys.modules.pop("victim_module", None)
    return trace


def a_run(written: Written, config: Mapping[str, Any], **tags: str) -> str:
    """The id of a run in the store, whose config and tags an attacker has written."""
    made = record("lora_r8", 0, 0.5, 1e9, **{"weights/saved_bytes": 100.0})
    parent = written.study("s", [])
    row = written.store.open_run(made, parent, {}, dict(config))
    weights = written.folder / WEIGHTS_FOLDER
    weights.mkdir()
    (weights / "adapter_config.json").write_text("{}")
    (written.folder / EXAMPLES_FILE).write_bytes(_rows(written.folder))
    row.close(made, [written.folder / EXAMPLES_FILE, weights])
    for key, value in tags.items():
        written.store.client.set_tag(row.run_id, key, value)
    return row.run_id


def _rows(folder: Path) -> bytes:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"index": [0], "exact_match": [1.0]}), folder / "rows")
    return (folder / "rows").read_bytes()


def config_with(changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    plain = compose("variant=lora_r8")
    for key, value in changes.items():
        node: Any = plain
        *groups, last = key.split("/")
        for group in groups:
            node = node[group]
        node[last] = value
    return plain


def opened(written: Written, run_id: str, **given: Any) -> StoredRun:
    scratch = written.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return find(written.store, None, run_id, scratch, Given(**given))


@pytest.mark.parametrize("group", ["model", "task", "variant"])
def test_a_class_of_another_package_is_not_imported(tmp_path: Path, victim: Path, group: str):
    written = Written(tmp_path)
    run_id = a_run(written, config_with({f"{group}/_target_": "victim_module.X"}))
    with pytest.raises(UserError, match=r"names classes of other packages .*victim_module\.X.* 'packages=\["):
        opened(written, run_id)
    assert not victim.exists()
    with pytest.raises(UserError, match="is not a "):  # it is imported where the command names it
        opened(written, run_id, packages=("victim_module",))
    assert victim.exists()


def test_a_class_in_a_part_that_an_export_does_not_need_is_not_imported(tmp_path: Path, victim: Path):
    written = Written(tmp_path)
    plain = config_with()
    plain["meters"]["extra"] = {"x": {"_target_": "victim_module.X"}}
    with pytest.raises(UserError, match="other packages"):
        opened(written, a_run(written, plain))
    assert not victim.exists()


def test_a_name_that_only_begins_like_ours_is_another_package(tmp_path: Path, victim: Path):
    (tmp_path / "modules" / "sweeper.py").write_text(f"open({str(victim)!r}, 'w').close()\n")
    written = Written(tmp_path)
    with pytest.raises(UserError, match="sweeper"):
        opened(written, a_run(written, config_with({"model/_target_": "sweeper.X"})))
    assert not victim.exists()


def own_code(folder: Path, trace: Path) -> Path:
    """A checkpoint whose config class is code in its folder."""
    checkpoints.llama(folder)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "mine.py").write_text(
        f"open({str(trace)!r}, 'w').close()\nfrom transformers import LlamaConfig\n"
        "class Mine(LlamaConfig):\n    model_type = 'mine'\n"
    )
    return folder


def test_remote_code_of_the_row_does_not_run(tmp_path: Path):
    trace, written = tmp_path / "trace", Written(tmp_path)
    base = own_code(tmp_path / "hostile", trace)
    plain = compose("variant=lora_r8", "model=pretrained", f"model.path={base}", "model.trust_remote_code=true")
    run_id = a_run(written, plain)
    with pytest.raises(UserError, match="An export runs such code only if you name it: trust_remote_code=true base="):
        opened(written, run_id)
    assert not trace.exists()
    # What the command names is used, and the row's base is not.
    other = checkpoints.llama(tmp_path / "mine")
    found = opened(written, run_id, base=str(other), remote_code=True)
    assert found.config.model.location()[0] == str(other)
    assert found.config.model.trust_remote_code
    assert not trace.exists()


def test_a_command_that_allows_code_does_not_switch_it_on_for_a_run_without(tmp_path: Path):
    written = Written(tmp_path)
    base = checkpoints.llama(tmp_path / "base")
    run_id = a_run(written, compose("variant=lora_r8", "model=pretrained", f"model.path={base}"))
    assert not opened(written, run_id, base=str(base), remote_code=True).config.model.trust_remote_code


def faults(*overrides: str) -> list[str]:
    composed = OmegaConf.create(compose("study=s", *overrides, config_name="export"))
    return [fault.key for fault in validate(composed, multirun=False) if fault.key != "tracking.uri"]


def test_remote_code_needs_a_base_that_the_command_names(tmp_path: Path):
    assert faults() == []
    assert faults("trust_remote_code=true") == ["base"]
    assert faults("trust_remote_code=true", "base=owner/name") == ["base_revision"]
    assert faults("trust_remote_code=true", "base=owner/name", "base_revision=0123abc") == []
    assert faults("trust_remote_code=true", f"base={tmp_path}") == []
    assert faults("packages=victim") == ["packages"]


@pytest.mark.parametrize("study", ["../../escaped", "/etc/escaped", "a/../../b", "..", ""])
def test_the_tag_study_does_not_lead_out_of_exports(tmp_path: Path, study: str):
    written = Written(tmp_path)
    found = opened(written, a_run(written, config_with(), study=study))
    with pytest.raises(UserError, match=r"the tag study = .* name the folder: out="):
        exporter.default_folder(found)
    inside = dataclasses.replace(found, record=dataclasses.replace(found.record, study="a/b", setting="../.. x=1"))
    assert exporter.default_folder(inside) == Path("exports/a/b/..-..-x-1-seed0")


def test_a_damaged_config_is_said_in_words(tmp_path: Path):
    written = Written(tmp_path)
    run_id = a_run(written, {"model": 1})
    with pytest.raises(UserError, match=f"the {CONFIG_FILE} of run .* has no group model"):
        opened(written, run_id)
