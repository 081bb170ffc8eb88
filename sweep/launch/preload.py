"""Imported once by the fork server: everything that a run needs and that takes seconds to import.

A child forked from here starts in a fraction of a second. CUDA must stay untouched in the server, since a CUDA context
does not survive a fork: PyTorch is told to count devices through NVML, and each child checks.
"""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its thread pool does not survive a fork
# One thread loads weights, so that the memory meter, which watches a thread, sees them arrive.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for optional kernels on the Hub, and says so
warnings.filterwarnings("ignore", message=".*requires_grad=True to a scalar.*")

import bitsandbytes  # noqa: E402, F401
import peft  # noqa: E402, F401
import pyarrow.parquet  # noqa: E402, F401
import torch  # noqa: E402
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
import sweep.training  # noqa: E402
import sweep.trial  # noqa: E402, F401
from sweep.meters import cpu  # noqa: E402, F401

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def cuda_is_untouched() -> bool:
    """Whether a child may still choose its device and make a CUDA context of its own."""
    return not torch.cuda.is_initialized()
