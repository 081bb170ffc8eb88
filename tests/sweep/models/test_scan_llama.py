"""The embedded base model's cache: built once, by one process, and noticed when damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from sweep.core.reporter import silent
from sweep.datasets import scan
from sweep.models.scan_llama import MANIFEST, ScanLlama, _fault

pytestmark = pytest.mark.slow


def small(cache: Path, **changes: int) -> ScanLlama:
    return ScanLlama(
        cache=str(cache),
        **{
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "pretrain_steps": 3,
            "pretrain_batch_size": 4,
            "pretrain_learning_rate": 1e-3,
            **changes,
        },
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ScanLlama:
    """Pretrained on a few of the commands: reading all 15,225 takes longer than the training."""
    commands = scan.base_examples()[:200]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "base_examples", lambda: commands)
        base = small(tmp_path_factory.mktemp("built"))
        base.prepare(silent)
    return base


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = scan.base_examples()[:200]
    monkeypatch.setattr(scan, "base_examples", lambda: commands)


@pytest.mark.usefixtures("few")
def test_built_once_and_repeatable(built: ScanLlama, tmp_path: Path):
    written = (built.folder / "model.safetensors").stat().st_mtime_ns
    facts = built.prepare(silent)
    assert (built.folder / "model.safetensors").stat().st_mtime_ns == written
    assert small(tmp_path / "b").prepare(silent) == facts  # the same recipe gives the same weights
    assert small(tmp_path / "c", pretrain_steps=4).prepare(silent) != facts
    assert AutoModelForCausalLM.from_pretrained(built.folder).config.hidden_size == 64


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:1000]),
        "model.safetensors changed since it was built",
    ),
    "changed config": (lambda f: (f / "config.json").write_text("{}"), "config.json changed since it was built"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing"),
    "half a manifest": (
        lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text()[:20]),
        "manifest.json cannot be read",
    ),
    "an empty manifest": (lambda f: (f / MANIFEST).write_text("{}"), "lists no weights"),
    "an empty folder": (_empty, "manifest.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(built: ScanLlama, tmp_path: Path, damage: str):
    folder = shutil.copytree(built.folder, tmp_path / "copy")
    assert _fault(folder) is None
    hurt, message = DAMAGES[damage]
    hurt(folder)
    assert message in (_fault(folder) or "")


@pytest.mark.usefixtures("few")
def test_a_damaged_cache_is_built_again(built: ScanLlama, tmp_path: Path):
    base = small(tmp_path)
    shutil.copytree(built.folder, base.folder)
    DAMAGES["truncated weights"][0](base.folder)
    assert base.prepare(silent) == built.prepare(silent)
    assert AutoModelForCausalLM.from_pretrained(base.folder).config.hidden_size == 64
    assert [path.name for path in tmp_path.iterdir() if "building" in path.name] == []


def test_two_processes_that_ask_at_once_build_it_once(tmp_path: Path):
    """The content of the model does not matter here: it is a file."""
    code = (
        "import sys, time\n"
        "from sweep.models.scan_llama import ScanLlama\n"
        "from sweep.core.reporter import silent\n"
        "def build(self, folder, report):\n"
        "    print('building', flush=True); time.sleep(1); (folder / 'model.safetensors').write_text('weights')\n"
        "ScanLlama._pretrain = build\n"
        "base = ScanLlama(cache=sys.argv[1], hidden_size=64, intermediate_size=64, num_hidden_layers=1,\n"
        "    num_attention_heads=2, pretrain_steps=1, pretrain_batch_size=1, pretrain_learning_rate=1e-3)\n"
        "while time.time() < float(sys.argv[2]): time.sleep(0.01)\n"
        "print(base.prepare(silent))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 1)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum(out.count("building") for out, _ in outputs) == 1
    assert len({out.splitlines()[-1] for out, _ in outputs}) == 1
