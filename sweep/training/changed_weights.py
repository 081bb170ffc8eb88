"""The share of 16-bit weights that training has changed. A small update of a 16-bit weight is rounded away."""

from __future__ import annotations

from typing import Any

import torch

_SAMPLED = 100_000  # weights


class SampledWeights:
    """Every n-th trained 16-bit weight of a model, as it is now: a copy of all would double their memory. The copy is
    outside of PyTorch, so that no memory meter counts it."""

    def __init__(self, model: torch.nn.Module) -> None:
        half = (torch.bfloat16, torch.float16)
        self._weights = [p for p in model.parameters() if p.requires_grad and p.dtype in half]
        self._stride = max(1, sum(p.numel() for p in self._weights) // _SAMPLED)
        self._before = [self._values(p) for p in self._weights]

    def changed_fraction(self) -> float | None:
        """The share that differs now, None if no 16-bit weight trains. Each tensor counts by its number of weights."""
        if not self._weights:
            return None
        changed = sum(
            p.numel() * float((self._values(p) != before).mean())
            for p, before in zip(self._weights, self._before, strict=True)
        )
        return changed / sum(p.numel() for p in self._weights)

    def _values(self, parameter: torch.nn.Parameter) -> Any:
        return parameter.detach().flatten()[:: self._stride].float().cpu().numpy().copy()
