"""Private names of libraries: each use is listed here with its file, and each name still exists."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from conftest import ROOT


class Private(NamedTuple):
    """`text` is how the files write the name; `find` raises where the library has dropped it."""

    text: str
    files: tuple[str, ...]
    find: Callable[[], Any]


def _torch() -> Any:
    import torch

    return torch


def _fake_device() -> Any:
    from torch.utils import backend_registration

    return backend_registration._setup_privateuseone_for_python_backend


def _hydra() -> Any:
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path, get_args_parser

    return Hydra, create_config_search_path, get_args_parser


def _dispatch() -> Any:
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


def _fake_tensors() -> Any:
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    return DataDependentOutputException, FakeTensorMode


def _resolvers() -> Any:
    from omegaconf.basecontainer import BaseContainer

    return BaseContainer._resolvers


def _attention_flags() -> Any:
    from transformers import PreTrainedModel

    return PreTrainedModel._supports_sdpa, PreTrainedModel._supports_flash_attn


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF._extract_corpus_statistics


MEMORY = "sweep/memory/"
NAMES = [
    Private("hydra._internal", ("sweep/hydra_compat/composer.py",), _hydra),
    Private("BaseContainer._resolvers", ("sweep/hydra_compat/isolated_job.py",), _resolvers),
    Private("torch.cuda._is_in_bad_fork", ("sweep/processes/child_process.py",), lambda: _torch().cuda._is_in_bad_fork),
    Private("torch._C._storage_address", ("sweep/runtime/storages.py",), lambda: _torch()._C._storage_address),
    Private("storage._cdata", ("sweep/runtime/storages.py",), lambda: _torch().UntypedStorage._cdata),
    Private("func._op", ("sweep/meters/cpu.py",), lambda: _torch().ops.aten.add.Tensor._op),
    Private("func._schema", ("sweep/meters/cpu.py",), lambda: _torch().ops.aten.add.Tensor._schema),
    Private("torch.cuda.memory._record_memory_history", ("sweep/meters/cuda.py",),
            lambda: _torch().cuda.memory._record_memory_history),
    Private("torch.cuda.memory._dump_snapshot", ("sweep/meters/cuda.py",), lambda: _torch().cuda.memory._dump_snapshot),
    Private("torch.utils._python_dispatch", ("sweep/meters/cpu.py", f"{MEMORY}simulation/allocation_log.py"),
            _dispatch),
    Private("torch._subclasses", (f"{MEMORY}simulation/patches.py", f"{MEMORY}predictor.py"), _fake_tensors),
    Private("backend_registration._setup_privateuseone_for_python_backend", (f"{MEMORY}simulation/fake_device.py",),
            _fake_device),
    Private("module._foreach_supported_types", (f"{MEMORY}simulation/patches.py",),
            lambda: importlib.import_module("torch.optim.optimizer")._foreach_supported_types),
    Private("_supports_sdpa", ("sweep/models/compatibility.py",), _attention_flags),
    Private("_extract_corpus_statistics", ("sweep/metrics/chrf.py",), _chrf),
]  # fmt: skip
USED = re.compile(r"\b[A-Za-z_]+(?:\.[A-Za-z_]+)*\._[a-z][A-Za-z_]*|\btorch\._C\._[a-z_]+")
# Our own names, NamedTuple's documented ones, operators of PyTorch (public by their schema), and os._exit.
PUBLIC = re.compile(r"^(self|cls|node)\b|\._(replace|asdict|fields|field_defaults)$|^torch\.ops\.aten\.|^os\._exit$")


def _uses() -> set[tuple[str, str]]:
    found = set()
    for package in ("sweep", "analysis", "hydra_plugins"):
        for path in (ROOT / package).rglob("*.py"):
            found |= {(str(path.relative_to(ROOT)), name) for name in USED.findall(path.read_text())}
    return {(file, name) for file, name in found if not PUBLIC.search(name)}


def test_each_use_of_a_private_name_is_listed():
    listed = {(file, name.text) for name in NAMES for file in name.files}
    assert {use for use in _uses() if use not in listed} == set()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.text)
def test_the_private_name_exists_and_is_used(name: Private):
    assert all(name.text.rpartition(".")[2] in (ROOT / file).read_text() for file in name.files)
    try:
        name.find()
    except (ImportError, AttributeError) as error:
        pytest.fail(f"the library dropped {name.text}, which {', '.join(name.files)} needs: {error}")
