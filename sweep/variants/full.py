"""Full fine-tuning: every parameter trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Full(Variant):
    """FFT: the reference for the cheaper variants."""

    trains_all: ClassVar[bool] = True

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PreTrainedModel:
        model.requires_grad_(True)
        return model
