"""PyTorch's CUDA build on machines that two stand-in libraries describe: `make test-cuda` installs that build.

Everything is real up to the first call of the driver that needs a GPU.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from machines import MACHINES, compile_standins

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None, reason="this is PyTorch's CPU build: make test-cuda"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the stand-ins need gcc"),
]
Probe = Callable[..., Any]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_standins(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def driver_log(tmp_path: Path) -> Path:
    return tmp_path / "driver.log"


@pytest.fixture
def run_on(libraries: Path, driver_log: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python command on a machine, by the machine's name."""

    def run(machine: str, *command: str) -> subprocess.CompletedProcess[str]:
        env = MACHINES[machine].environment(libraries, driver_log)
        env["PYTHONPATH"] = f"{ROOT}:{Path(__file__).parent}"
        return subprocess.run(
            [sys.executable, *command], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def probe(run_on: Callable[..., subprocess.CompletedProcess[str]]) -> Probe:
    def run(machine: str, *arguments: str) -> Any:
        ended = run_on(machine, str(Path(__file__).with_name("probe.py")), *arguments)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
        return json.loads(ended.stdout.splitlines()[-1])

    return run


USABLE = {
    "one H100",
    "eight H100s",
    "a display GPU and an RTX 4090",
    "two kinds of GPUs",
    "an RTX 4090, named by its UUID",
    "a MIG device",
    "a GPU that does not state its memory",
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_fork_server_uses_no_cuda_and_its_children_may(machine: str, probe: Probe, driver_log: Path):
    found = probe(machine, "server")
    assert found["method"] == "forkserver"
    assert not found["child"]["forked after CUDA was used"]
    assert not driver_log.exists(), driver_log.read_text()
    library = "CudaBNBNativeLibrary" if machine in USABLE else "BNBNativeLibrary"
    assert found["child"]["bitsandbytes"] == library


@pytest.mark.parametrize("variant", ["fft", "qlora_r16"])
def test_a_prediction_is_the_same_on_every_machine(variant: str, probe: Probe, driver_log: Path, tiny_checkpoint: Path):
    """The reference is the machine without a GPU."""
    machines = ("no GPU", "one H100", "eight H100s", "a display GPU and an RTX 4090", "a MIG device")
    reference, *others = (probe(machine, "prediction", str(tiny_checkpoint), variant) for machine in machines)
    assert reference["tier"] == "trace"
    assert others == [reference] * len(others)
    assert not driver_log.exists(), driver_log.read_text()
