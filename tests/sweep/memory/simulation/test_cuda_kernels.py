"""The attention kernel and the workspace of a GPU, as PyTorch 2.13 and cuBLAS choose them."""

from __future__ import annotations

import pytest
import torch

from sweep.memory.prediction import Machine
from sweep.memory.simulation.cuda_kernels import attention_kernel, inner_bytes, register_bitsandbytes

MIB = 2**20


@pytest.mark.parametrize(
    ("capability", "width", "dropout", "trains", "kernel"),
    [
        ((9, 0), 64, 0.0, True, "cudnn"),
        ((10, 3), 128, 0.0, True, "cudnn"),
        ((9, 0), 64, 0.125, True, "cudnn"),
        ((9, 0), 64, 0.1, True, "flash"),  # GPT-2 and BERT: cuDNN's dropout is a multiple of 1/16
        ((8, 0), 224, 0.0, True, "flash"),
        ((8, 6), 224, 0.0, True, "efficient"),
        ((8, 9), 200, 0.0, True, "efficient"),
        ((12, 0), 224, 0.0, True, "efficient"),
        ((8, 6), 224, 0.0, False, "flash"),
        ((8, 6), 256, 0.0, True, "flash"),
        ((8, 6), 256, 0.1, True, "efficient"),
        ((7, 5), 64, 0.0, True, "efficient"),
    ],
)
def test_the_kernel_depends_on_the_card_the_width_and_the_dropout(
    capability: tuple[int, int], width: int, dropout: float, trains: bool, kernel: str
):
    found = attention_kernel(
        capability, torch.float16, width, masked=False, grouped=False, dropout=dropout, trains=trains
    )
    assert found == kernel


@pytest.mark.parametrize(
    ("capability", "config", "size"),
    [
        ((8, 9), "", 8.125),
        ((9, 0), "", 32),
        ((10, 0), "", 32),
        ((11, 0), "", 8.125),
        ((12, 1), "", 32),
        ((9, 0), ":4096:8", 32),
        ((9, 0), ":4096:2:16:8", 8.125),
        ((8, 0), ":16:8", 0.125),
        ((9, 0), "a mistake", 32),
    ],
)
def test_the_workspace_is_that_of_the_card_or_of_the_environment(capability: tuple[int, int], config: str, size: float):
    machine = Machine(kind="cuda", capability=capability, cublas_workspace_config=config)
    assert machine.workspace_bytes == size * MIB


def test_runs_inherit_the_workspace_of_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert Machine(kind="cuda", capability=(9, 0)).workspace_bytes == 128 * 1024


@pytest.mark.parametrize(("rows", "dequantised"), [(4, 0), (5, 64 * 64 * 2)])
def test_a_product_of_few_rows_makes_no_dequantised_weight(rows: int, dequantised: int):
    register_bitsandbytes()
    x, weight = torch.empty(rows, 64, dtype=torch.bfloat16), torch.empty(64 * 64 // 2, 1, dtype=torch.uint8)
    assert sum(inner_bytes(torch.ops.bitsandbytes.gemm_4bit.default, (x, weight, (64, 64)), {})) == dequantised
