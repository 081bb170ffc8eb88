"""Imports everything that a run needs and that takes seconds to import. The fork server calls `initialise` once. It
must not call the CUDA driver, which does not survive a fork: NVML counts the GPUs meanwhile, and each child checks.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sweep.runtime import gpus, nvml

_MODULES = (
    "pyarrow.parquet", "sweep.models.scan_llama", "sweep.tasks.generation", "sweep.training.fit", "sweep.training_run",
    "sweep.meters.cpu",
)  # fmt: skip
# Transformers imports a class when its name is first used: these are the classes that runs use.
_CLASSES = (
    "AutoModelForCausalLM", "AutoTokenizer", "BitsAndBytesConfig", "LlamaForCausalLM", "PreTrainedTokenizerFast",
    "Trainer",
)  # fmt: skip
_ANY_CAPABILITY = (8, 0)
_NOT_SHOWN = (
    ".*requires_grad=True to a scalar.*",
    ".is_gradient_checkpointing. is deprecated",  # PEFT 0.21 uses it, transformers 5 warns
    "Position ids are not supported",  # sweep/tasks/batching.py handles them
)


@cache
def initialise() -> None:
    """Import the libraries of a run, with their warnings and progress bars off."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its thread pool does not survive a fork
    # One thread loads weights: the memory meter observes one thread, and so it sees the weights arrive.
    os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it logs its search for optional kernels on the Hub
    for message in _NOT_SHOWN:
        warnings.filterwarnings("ignore", message=message)
    with _without_the_driver():
        importlib.import_module("bitsandbytes")
        importlib.import_module("peft")
        transformers = importlib.import_module("transformers")
        for name in _CLASSES:
            getattr(transformers, name)
        for name in _MODULES:
            importlib.import_module(name)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _capability_by_nvml(device: Any = None) -> tuple[int, int]:
    """`torch.cuda.get_device_capability` without the CUDA driver. If NVML is not available, some capability that all
    libraries support: bitsandbytes takes its library for the CPU if there is none."""
    index = getattr(device, "idx", device)
    with nvml.opened() as library:
        if library is None:
            return _ANY_CAPABILITY
        try:
            return tuple(library.nvmlDeviceGetCudaComputeCapability(library.nvmlDeviceGetHandleByIndex(index or 0)))
        except library.NVMLError:
            return _ANY_CAPABILITY


@contextmanager
def _without_the_driver() -> Iterator[None]:
    """Libraries ask for the number of GPUs and for their capability when they are imported. PyTorch's functions call
    the CUDA driver where NVML cannot tell, and for the capability always."""
    import torch

    count, capability = torch.cuda.device_count, torch.cuda.get_device_capability
    torch.cuda.device_count, torch.cuda.get_device_capability = _count, _capability_by_nvml
    try:
        yield
    finally:
        torch.cuda.device_count, torch.cuda.get_device_capability = count, capability


def _count() -> int:
    """`torch.cuda.device_count` without the CUDA driver."""
    import torch

    return gpus.count_without_cuda() if torch.backends.cuda.is_built() else 0
