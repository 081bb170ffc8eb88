"""Whether a written model computes what the run's model computes: by logits, since equal scores may be 0 and 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sweep.core.errors import UserError

if TYPE_CHECKING:
    import torch

OF_TRAINING = 0.1  # of what training has moved the logits by
# Of the logits themselves, by the bytes of a weight: rounding, over all blocks.
ROUNDING = {4: 1e-3, 2: 3e-2}


class Logits(NamedTuple):
    """On the same inputs: of the base, and of the base with the trained part."""

    base: torch.Tensor
    trained: torch.Tensor

    def require_equal(self, written: torch.Tensor, weight_bytes: int) -> None:
        """Raises UserError where the written model differs from the trained one by more than rounding."""
        apart, moved = _size(written - self.trained), _size(self.trained - self.base)
        if apart > OF_TRAINING * moved + ROUNDING[weight_bytes] * _size(self.trained):
            raise UserError(
                f"the written model does not compute what the run's model computes: its logits differ by {apart:.3g} "
                f"(root mean square), and training had moved them by {moved:.3g}. Nothing was written. Export the "
                "adapter: merge=false"
            )


def _size(values: torch.Tensor) -> float:
    return float(values.float().square().mean().sqrt())
