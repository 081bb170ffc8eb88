"""The embedded base model's cache: built once, by one process, and noticed when damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from sweep.models.scan_llama import MANIFEST, ScanLlama
from sweep.report import silent

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


def test_built_once_and_repeatable(tmp_path: Path):
    base = small(tmp_path / "a")
    facts = base.prepare(silent)
    written = (base.folder / "model.safetensors").stat().st_mtime_ns
    assert base.prepare(silent) == facts
    assert (base.folder / "model.safetensors").stat().st_mtime_ns == written
    assert small(tmp_path / "b").prepare(silent) == facts  # the same recipe gives the same weights
    assert small(tmp_path / "a", pretrain_steps=4).prepare(silent) != facts
    assert AutoModelForCausalLM.from_pretrained(base.folder).config.hidden_size == 64


@pytest.mark.parametrize(
    "damage", ["truncated weights", "changed config", "no manifest", "half a manifest", "an empty folder"]
)
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str):
    base = small(tmp_path)
    facts = base.prepare(silent)
    weights, manifest = base.folder / "model.safetensors", base.folder / MANIFEST
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "changed config":
        (base.folder / "config.json").write_text("{}")
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:20])
    else:
        for file in base.folder.iterdir():
            file.unlink()
    assert base.prepare(silent) == facts
    assert AutoModelForCausalLM.from_pretrained(base.folder).config.hidden_size == 64
    assert [path.name for path in tmp_path.iterdir() if "building" in path.name] == []


def test_two_processes_that_ask_at_once_build_it_once(tmp_path: Path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_base_model import small; from sweep.report import silent\n"
        "from sweep.models import scan_llama\n"
        "pretrain = scan_llama.ScanLlama._pretrain\n"
        "def counted(self, folder, report):\n"
        "    print('building', flush=True); pretrain(self, folder, report)\n"
        "scan_llama.ScanLlama._pretrain = counted\n"
        "print(small(Path(sys.argv[1])).prepare(silent))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum(out.count("building") for out, _ in outputs) == 1
    assert len({out.splitlines()[-1] for out, _ in outputs}) == 1
