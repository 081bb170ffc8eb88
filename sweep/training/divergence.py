"""When training has gone wrong for good: seen at once, instead of paid for to the end."""

from __future__ import annotations

import math

# A model that knows nothing scores ln(vocabulary). A loss beyond twice that, five steps in a row, will not come back.
FACTOR = 2.0
STEPS = 5
# With fp16, an infinite gradient is how the scale of the loss is found: the step is skipped, and the scale halved. From
# its start at 65,536, this many in a row bring it below 1.
SKIPPED_IN_A_ROW = 17


class Diverged(Exception):
    """Loss or gradients are not numbers, or the loss has left for good."""


class DivergenceWatch:
    """Looks at each optimizer step. `guess` is the loss of a model that knows nothing, where it is known; `scaled` says
    that the loss is scaled for fp16."""

    def __init__(self, guess: float = math.inf, scaled: bool = False):
        self._guess = guess
        self._scaled = scaled
        self._first: float | None = None
        self._far = 0
        self._skipped = 0

    def check(self, step: int, loss: float, gradient_norm: float | None) -> None:
        """Raises Diverged. `gradient_norm` is the one before clipping."""
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss} at step {step}")
        if gradient_norm is not None:
            self._check_gradients(step, gradient_norm)
        self._first = loss if self._first is None else self._first
        limit = FACTOR * max(self._guess, self._first)
        self._far = self._far + 1 if loss > limit else 0
        if self._far >= STEPS:
            raise Diverged(
                f"loss {loss:.3g} at step {step}, above {limit:.3g} (twice what a model scores that knows nothing) for "
                f"{STEPS} steps in a row"
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
