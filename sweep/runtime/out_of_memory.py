"""The errors of all libraries that mean out of memory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

# In lower case. They are in the messages of PyTorch's allocators, the CUDA runtime and driver, Triton and NCCL; of
# cuBLAS, which cannot be initialised on a full GPU; of cuBLAS and cuDNN; and of PyTorch's CPU allocator.
_SIGNS = (
    "out of memory",
    "cublas_status_not_initialized",
    "alloc_failed",
    "allocation_failed",
    "can't allocate memory",
    "not enough memory",
)
# bitsandbytes' C code prints an error of CUDA, and ends the process.
_PRINTED = re.compile(r"^Error .*\bmemory\b.* at line \d+ in file .*$", re.MULTILINE)
_PRINTED_EXIT_CODE = 1
_LAST_BYTES = 10_000  # of a log


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, or one that it was raised from, means that a device or the host has too little memory."""
    torch = sys.modules.get("torch")  # a study's coordinator does not import it, and an error of PyTorch needs it
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)


def printed_out_of_memory(exit_code: int, log_file: Path) -> str | None:
    """The line in which a process that ended without a result reported out of memory; None if it did not."""
    if exit_code != _PRINTED_EXIT_CODE or not log_file.exists():
        return None
    found = _PRINTED.findall(log_file.read_bytes()[-_LAST_BYTES:].decode(errors="replace"))
    return found[-1] if found else None
