"""LoRA written out in pure PyTorch, and PEFT's layer held against it: forward, gradients, count, scaling, merge."""

from __future__ import annotations

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class LoRALinear(nn.Module):
    """y = W x + b + s · B (A x), with W and b frozen, A random and B zero at the start (arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, r: int, alpha: float, *, rslora: bool = False):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = alpha / (math.sqrt(r) if rslora else r)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scaling * (x @ self.A.T) @ self.B.T

    def merged(self) -> torch.Tensor:
        return self.base.weight + self.scaling * self.B @ self.A


D_IN, D_OUT = 24, 40


class Net(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture(params=[(4, 8.0, False), (8, 8.0, False), (16, 4.0, True)], ids=["r4", "r8", "rslora16"])
def pair(request: pytest.FixtureRequest):
    """Ours and PEFT's, over equal weights, with a B that is not zero."""
    r, alpha, rslora = request.param
    torch.manual_seed(0)
    base = nn.Linear(D_IN, D_OUT)
    twin = nn.Linear(D_IN, D_OUT)
    twin.load_state_dict(base.state_dict())
    ours = LoRALinear(base, r, alpha, rslora=rslora)
    theirs = get_peft_model(
        Net(twin), LoraConfig(r=r, lora_alpha=alpha, target_modules=["layer"], use_rslora=rslora, lora_dropout=0.0)
    )
    layer = theirs.base_model.model.layer
    with torch.no_grad():
        ours.B.normal_()
        layer.lora_A["default"].weight.copy_(ours.A)
        layer.lora_B["default"].weight.copy_(ours.B)
    return ours, theirs, layer


def test_forward_and_gradients(pair):
    ours, theirs, layer = pair
    x = torch.randn(3, 5, D_IN)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [model(value) for model, value in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.pow(2).sum().backward()
    torch.testing.assert_close(layer.lora_A["default"].weight.grad, ours.A.grad)
    torch.testing.assert_close(layer.lora_B["default"].weight.grad, ours.B.grad)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    assert layer.base_layer.weight.grad is None
    # And by hand, for B alone: dL/dB = s · (dL/dy)ᵀ (x Aᵀ).
    by_hand = ours.scaling * (2 * outputs[0].detach()).flatten(0, 1).T @ (x @ ours.A.detach().T).flatten(0, 1)
    torch.testing.assert_close(ours.B.grad, by_hand)


def test_count_and_scaling(pair):
    ours, theirs, layer = pair
    r = ours.A.shape[0]
    assert theirs.get_nb_trainable_parameters()[0] == r * (D_IN + D_OUT)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == r * (D_IN + D_OUT)
    assert layer.scaling["default"] == ours.scaling


def test_merge(pair):
    ours, theirs, _ = pair
    x = torch.randn(7, D_IN)
    before = theirs(x)
    plain = theirs.merge_and_unload()
    torch.testing.assert_close(plain.layer.weight, ours.merged())
    torch.testing.assert_close(plain(x), before)
