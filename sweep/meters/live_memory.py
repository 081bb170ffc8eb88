"""Live memory by category: weights, gradients, optimizer state, and the rest, which belongs to a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from sweep.runtime.storages import tensor_storage_key

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

REST = "activations_and_temporaries"


def by_category(model: Module | None, optimizer: Optimizer | None, live_bytes: int) -> dict[str, int]:
    """Bytes by category; they sum to `live_bytes`. The names are those of the predictor, with one category for all
    memory that neither model nor optimizer holds: only a prediction can divide it. Every storage counts once, on the
    device of the first weight."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    parameters = [] if model is None else list(model.parameters())
    device = next((p.device.type for p in parameters), "cpu")

    def add(category: str, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor) or tensor.device.type != device:
                continue
            if tensor_storage_key(tensor) not in seen:
                seen.add(tensor_storage_key(tensor))
                sizes[category] = sizes.get(category, 0) + tensor.untyped_storage().nbytes()

    for parameter in parameters:
        state = list(quantization_state(parameter))
        add("quantized_weights" if state else weights_of(parameter), [parameter])
        add("quantization_state", state)
        add("gradients", [parameter.grad])
    if optimizer is not None:
        add("optimizer_state", (value for state in optimizer.state.values() for value in state.values()))
    if model is not None:
        add("buffers_and_batch", model.buffers())
    return {**sizes, REST: max(0, live_bytes - sum(sizes.values()))}


def paged_bytes(optimizer: Optimizer | None) -> int:
    """Bytes of the state that a paged optimizer of bitsandbytes keeps in managed memory. The driver moves it between
    GPU and host. PyTorch regards it as memory of the host and does not count it, but it is needed somewhere. Tensors of
    fewer than 100,000 elements are not paged."""
    if optimizer is None:
        return 0
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if getattr(value, "is_paged", False))


def weights_of(parameter: Parameter) -> str:
    """The category of a weight that is not quantised."""
    return "trainable_weights" if parameter.requires_grad else "frozen_weights"


def quantization_state(parameter: Parameter) -> Iterator[torch.Tensor]:
    """The tensors of a 4-bit weight's quantisation: scales, codes, and with double quantisation the scales' scales."""
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = getattr(state, "state2", None)
