"""Imported once by the fork server: everything that a run needs and that takes seconds to import.

A child forked from here starts in a fraction of a second. CUDA must stay untouched in the server, since a CUDA context
does not survive a fork: PyTorch is told to count devices through NVML, and each child checks.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its thread pool does not survive a fork
# One thread loads weights, so that the memory meter, which watches a thread, sees them arrive.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for optional kernels on the Hub, and says so
warnings.filterwarnings("ignore", message=".*requires_grad=True to a scalar.*")
warnings.filterwarnings(
    "ignore", message=".is_gradient_checkpointing. is deprecated"
)  # PEFT 0.21 asks, transformers 5 warns
warnings.filterwarnings("ignore", message="Position ids are not supported")  # sweep/tasks/batching.py sees to it

import torch  # noqa: E402

from sweep.runtime import nvml  # noqa: E402


def _capability_by_nvml(device: Any = None) -> tuple[int, int]:
    """`torch.cuda.get_device_capability` without a CUDA context."""
    index = getattr(device, "idx", device)
    with nvml.opened() as library:
        return tuple(library.nvmlDeviceGetCudaComputeCapability(library.nvmlDeviceGetHandleByIndex(index or 0)))


@contextmanager
def _without_a_context() -> Iterator[None]:
    """bitsandbytes asks every GPU for its capability as it is imported, and peft imports it: through torch, that makes
    a CUDA context in this process."""
    asked = torch.cuda.get_device_capability
    torch.cuda.get_device_capability = _capability_by_nvml
    try:
        yield
    finally:
        torch.cuda.get_device_capability = asked


with _without_a_context():
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

import pyarrow.parquet  # noqa: E402, F401
import transformers  # noqa: E402
from transformers import (  # noqa: E402, F401  transformers imports lazily: name what runs use
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
)

import sweep.models.scan_llama  # noqa: E402
import sweep.tasks.generation  # noqa: E402
import sweep.training.fit  # noqa: E402
import sweep.training_run  # noqa: E402, F401
from sweep.meters import cpu  # noqa: E402, F401

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
