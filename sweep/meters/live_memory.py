"""What live memory is for: weights, gradients and optimizer state are known by who holds them, the rest is a step's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from sweep.runtime.storages import storage_address

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

REST = "activations_and_temporaries"


def by_category(model: Module | None, optimizer: Optimizer | None, live_bytes: int) -> dict[str, int]:
    """Bytes by category; they sum to `live_bytes`. Names are the predictor's, but for what only a prediction can tell
    apart: all that nobody holds is one category. Every storage counts once, on the device of most of the weights."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    parameters = [] if model is None else list(model.parameters())
    device = next((p.device.type for p in parameters), "cpu")

    def add(category: str, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor) or tensor.device.type != device:
                continue
            if storage_address(tensor) not in seen:
                seen.add(storage_address(tensor))
                sizes[category] = sizes.get(category, 0) + tensor.untyped_storage().nbytes()

    for parameter in parameters:
        state = list(quantization_state(parameter))
        add("quantized_weights" if state else weights_of(parameter), [parameter])
        add("quantization_state", state)
        add("gradients", [parameter.grad])
    if optimizer is not None:
        add("optimizer_state", (value for held in optimizer.state.values() for value in held.values()))
    if model is not None:
        add("buffers_and_batch", model.buffers())
    return {**sizes, REST: max(0, live_bytes - sum(sizes.values()))}


def weights_of(parameter: Parameter) -> str:
    """The category of a weight that is not quantised."""
    return "trainable_weights" if parameter.requires_grad else "frozen_weights"


def quantization_state(parameter: Parameter) -> Iterator[torch.Tensor]:
    """The tensors that hang on a 4-bit weight: scales, codes, and with double quantisation the scales' own."""
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = getattr(state, "state2", None)
