"""The share of 16-bit weights that training changes."""

from __future__ import annotations

import pytest
import torch

from sweep.diagnostics import sanity_checks
from sweep.training.changed_weights import SampledWeights
from sweep.variants.full import Full


def trained(dtype: torch.dtype, sizes: tuple[int, ...] = (300_000, 7)) -> tuple[float | None, float]:
    """(the sampled share, the share of all weights that changed) after 50 steps of AdamW at FFT's rate."""
    torch.manual_seed(0)
    model = torch.nn.ParameterList(torch.nn.Parameter((torch.randn(n) * 0.02).to(dtype)) for n in sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, foreach=True)
    start = [p.detach().clone() for p in model]
    sampled = SampledWeights(model)
    for _ in range(50):
        for p in model:
            p.grad = torch.randn_like(p)
        optimizer.step()
    changed = sum(int((p != before).sum()) for p, before in zip(model, start, strict=True))
    return sampled.changed_fraction(), changed / sum(sizes)


def test_the_sampled_share_is_that_of_all_weights():
    sampled, truth = trained(torch.bfloat16)
    assert sampled == pytest.approx(truth, abs=0.01)
    assert 0.1 < truth < 0.5  # most of these updates are rounded away


def test_nothing_is_lost_in_fp32():
    sampled, truth = trained(torch.float32)
    assert sampled is None
    assert truth > 0.999


def test_a_small_rate_in_16_bits_is_among_the_warnings():
    def lines(rate: float) -> list[str]:
        return list(
            sanity_checks.warnings(
                {"train/changed_weights_fraction": 0.3}, True, rate, Full(name="fft", learning_rate=rate)
            )
        )

    assert lines(2e-5)[0].startswith(
        "the weights trained in 16 bits at a learning rate of 2e-05, and 30% of them changed"
    )
    assert lines(1e-3) == []
