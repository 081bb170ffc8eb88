"""Toys instead of mocks: a tiny real checkpoint, a real SQLite store, real processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Tests reach no network, and report their runs to nobody.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # two test workers share the cores, and would spin
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many processes would compile our modules again


def pytest_configure(config: pytest.Config) -> None:
    """Tests use the CPU: on a machine with several GPUs, the Trainer would split their batches. `-m gpu` runs the tests
    that need a GPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches the user's cache of base models."""
    os.environ["PARETUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


_frozen_modules = 0
_MANY = 300


@pytest.fixture(autouse=True)
def _imports_are_not_looked_through_again() -> None:
    """Each training begins with a full garbage collection, half a second once transformers is imported; what imports
    left is set aside, as a run's own process does."""
    global _frozen_modules
    if len(sys.modules) > _frozen_modules + _MANY:
        _frozen_modules = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of some 60,000 parameters with SCAN's tokenizer, as `save_pretrained` writes it. It knows nothing."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sweep.models.scan_llama import POSITIONS, build_tokenizer

    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy(tiny_checkpoint: Path) -> list[str]:
    """Overrides that make a run last a second."""
    return [
        "model=pretrained",
        f"model.path={tiny_checkpoint}",
        "train.max_steps=6",
        "train.max_length=100",
        "train.micro_batch_size=4",
        "task.data.n_train=64",
        "task.data.n_validation=20",
        "task.max_new_tokens=4",
        "study.predict_memory=false",
    ]


@pytest.fixture
def hydra_by_default() -> Iterator[None]:
    """Hydra as its own suites expect it: other tests in this process have asked for a newer behaviour."""
    from hydra.version import VersionBase, __compat_version__

    before = VersionBase.instance().getbase()
    VersionBase.instance().setbase(__compat_version__)
    yield
    VersionBase.instance().version_base = before


@pytest.fixture(scope="module")
def light_fork_server() -> Iterator[None]:
    """Stops a fork server that has imported nothing of training: other tests would start runs from it, slowly. The
    program itself never replaces its server, and multiprocessing has no public function for it."""
    from multiprocessing import forkserver

    yield
    forkserver._forkserver._stop()


def heed_interrupts() -> None:
    """For `preexec_fn`: a shell starts what it puts in the background with Ctrl-C ignored, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `python -m MODULE ARGUMENTS` in an empty folder, as a user would."""

    def run(module: str, *arguments: str, env: dict[str, str] | None = None, timeout: float = 240) -> object:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def compose(*overrides: str, config_name: str = "config") -> dict:
    """A composed, resolved config as plain containers."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.version import VersionBase

    from sweep.config.schema import plain_config

    before = VersionBase.instance().version_base
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            composed = hydra_compose(config_name, overrides=list(overrides), return_hydra_config=True)
            composed.hydra.runtime.cwd = "/somewhere"
            HydraConfig.instance().set_config(composed)
            return plain_config(composed)
    finally:
        VersionBase.instance().version_base = before  # Hydra's own tests, in the same process, have another


class Losses:
    """A report that keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.values.append(values["train/loss"])

    def progress(self, label: str, done: int, total: int) -> None:
        return
