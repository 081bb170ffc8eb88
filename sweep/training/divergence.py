"""Detect divergence at the step where it happens, instead of at the end of training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Random guessing has the loss ln(vocabulary). A loss above twice that value for five steps does not recover.
FACTOR = 2.0
STEPS = 5
# With fp16, infinite gradients adjust the scale of the loss: the step is skipped, and the scale is halved. It starts at
# 65,536; after this many skipped steps in a row it is below 1.
SKIPPED_IN_A_ROW = 17


class Diverged(Exception):
    """Loss or gradients are not finite, or the loss stays too high."""


class DivergenceWatch:
    """Checks each optimizer step. `guess` is the loss of random guessing, infinite if it is unknown; `scaled` states
    whether the loss is scaled for fp16."""

    def __init__(self, guess: float = math.inf, scaled: bool = False):
        self._guess = guess
        self._scaled = scaled
        self._first: float | None = None
        self._far = 0
        self._skipped = 0

    def check(self, step: int, loss: float, gradient_norm: float | None) -> None:
        """Raises Diverged. `gradient_norm` is the norm before clipping, None if it is unknown."""
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss} at step {step}")
        if gradient_norm is not None:
            self._check_gradients(step, gradient_norm)
        self._first = loss if self._first is None else self._first
        limit = FACTOR * max(self._guess, self._first)
        self._far = self._far + 1 if loss > limit else 0
        if self._far >= STEPS:
            raise Diverged(
                f"loss {loss:.3g} at step {step}, above {limit:.3g} (twice the loss of random guessing) for {STEPS} "
                "steps in a row"
            )

    def _check_gradients(self, step: int, norm: float) -> None:
        if math.isfinite(norm):
            self._skipped = 0
            return
        self._skipped += 1
        if not self._scaled:
            raise Diverged(f"the gradient norm is {norm} at step {step}, while the loss is still a number")
        if self._skipped >= SKIPPED_IN_A_ROW:
            raise Diverged(
                f"the gradient norm is {norm} at step {step}, for {self._skipped} steps in a row: no scale of the loss "
                "keeps these gradients inside fp16"
            )


def require_finite_weights(model: torch.nn.Module) -> None:
    """Raises Diverged if a trained weight is NaN or infinite. Loss and gradients do not show what the last optimizer
    step did. Of a sharded model, each rank checks its part."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if not part.detach().isfinite().all():
                raise Diverged(f"the weight {name} is not finite after the last optimizer step")
