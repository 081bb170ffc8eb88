"""How many parameters a model has, how many train, and which share of the blocks is adapted or quantised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sweep.core.measurements import ADAPTED_FRACTION, QUANTIZED_FRACTION

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(all, trainable). A 4-bit weight counts its original elements, not its packed bytes."""
    total = trainable = 0
    for parameter in model.parameters():
        size = _elements(parameter)
        total += size
        trainable += size if parameter.requires_grad else 0
    return total, trainable


def block_fractions(model: torch.nn.Module, base: PreTrainedModel) -> dict[str, float]:
    """The shares of the weights of the blocks that an adapter changes, and that are held in 4 or 8 bits. `model` is
    `base` with its adapters; embeddings, heads, norms, biases and weights that train do not count. Empty if none is
    left, as for full fine-tuning.

    "Every linear layer" is less than it says where experts are no linear layers, but one tensor of three dimensions:
    PEFT and bitsandbytes leave them as they are in some mixtures of experts.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    outer = {id(module.weight) for module in (*embeddings, base.get_output_embeddings()) if module is not None}
    adapted: set[int] = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            inside = module.get_base_layer()
            name = getattr(module, "parameter_name", "weight")  # of an expert's tensor
            adapted.add(id(getattr(inside, name, None)))
    whole = changed = quantized = 0
    for name, parameter in model.named_parameters():
        is_matrix = len(_shape(parameter)) > 1 and not name.endswith("bias")  # experts have a bias each, in one tensor
        if not is_matrix or id(parameter) in outer or parameter.requires_grad or "modules_to_save" in name:
            continue
        size = _elements(parameter)
        whole += size
        changed += size if id(parameter) in adapted else 0
        quantized += size if not parameter.is_floating_point() else 0
    return {ADAPTED_FRACTION: changed / whole, QUANTIZED_FRACTION: quantized / whole} if whole else {}


def _elements(parameter: torch.Tensor) -> int:
    return math.prod(_shape(parameter))


def _shape(parameter: torch.Tensor) -> tuple[int, ...]:
    state = getattr(parameter, "quant_state", None)
    return tuple(state.shape if state is not None else parameter.shape)
