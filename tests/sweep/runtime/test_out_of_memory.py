"""Errors and last words that mean out of memory, as the libraries write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from sweep.core.record import Outcome, Record
from sweep.launch.crash import outcome_of_crash
from sweep.processes import isolated_call
from sweep.runtime.out_of_memory import is_out_of_memory

TEXTS = {
    "PyTorch": "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which …",
    "CUDA runtime": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call",
    "CUDA driver": "CUDA driver error: out of memory",
    "Triton": "Triton Error [CUDA]: out of memory",
    "NCCL": "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error (run with "
            "NCCL_DEBUG=INFO for details), NCCL version 2.29.7\nncclUnhandledCudaError: Call to CUDA function failed.\n"
            "Last error:\nCuda failure 2 'out of memory'",
    "cuBLAS on a full GPU": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN 8": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "PyTorch on the CPU": "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: "
                          "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
}  # fmt: skip


@pytest.mark.parametrize("library", TEXTS)
def test_each_library_s_text_is_out_of_memory(library: str):
    assert is_out_of_memory(RuntimeError(TEXTS[library]))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("out of memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_other_errors_are_not(error: Exception):
    assert not is_out_of_memory(error)


def test_an_error_that_was_raised_from_out_of_memory_is_out_of_memory():
    with pytest.raises(RuntimeError) as raised:  # noqa: PT012
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            raise RuntimeError("loading failed") from error
    assert is_out_of_memory(raised.value)


def print_and_exit(text: str, report: object) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


RECORD = Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED)
LINE = "Error out of memory at line 351 in file /src/csrc/pythonInterface.cpp"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (LINE, Outcome.OOM),
        ("Error no CUDA-capable device is detected at line 559 in file /src/csrc/pythonInterface.cpp", Outcome.KILLED),
        ("Killed", Outcome.KILLED),
    ],
)
def test_bitsandbytes_prints_out_of_memory_and_ends_the_process(text: str, outcome: Outcome, tmp_path: Path):
    """Its C code calls exit(1) on an error of CUDA, as in paged AdamW on a full GPU (bitsandbytes issue 464)."""
    log_file = tmp_path / "run.log"
    with pytest.raises(isolated_call.ChildKilled) as ended:
        isolated_call.call("test_out_of_memory:print_and_exit", text, log_file=log_file)
    found, reason = outcome_of_crash(ended.value, log_file, RECORD)
    assert found is outcome
    assert (text in reason) == (outcome is Outcome.OOM)


def test_a_process_that_ends_because_others_fill_the_gpu_is_worth_a_retry(tmp_path: Path):
    (tmp_path / "run.log").write_text(f"\n{LINE}\n")
    record = RECORD.added({"memory/preexisting_bytes": 60 * 2**30})
    ended = isolated_call.ChildKilled(1, host_oom=False)
    outcome, reason = outcome_of_crash(ended, tmp_path / "run.log", record)
    assert outcome is Outcome.FAILED
    assert reason.startswith("memory ran out while other processes held 60.0 GiB on the GPU")
