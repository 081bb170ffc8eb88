"""How a base model is made trainable: one file per family, one YAML per variant in `conf/variant/`.

Importing this package, or a family's module, imports neither torch nor peft: configs are checked before anything heavy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Gt, Lt, MinLen

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Variant(ABC):
    """A way to fine-tune, with its own learning rate.

    The rate belongs to the variant and not to the conditions: LoRA's best is about ten times FFT's (Biderman et al.
    2024, arXiv 2405.09673), so that one rate for all would be unfair to some.
    """

    name: Annotated[str, MinLen(1)]
    learning_rate: Annotated[float, Gt(0), Lt(1e9)]

    def quantization(self, compute_dtype: torch.dtype) -> Any | None:
        """The transformers quantisation config that the base is loaded with, or None."""
        return None

    @abstractmethod
    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> torch.nn.Module:
        """The model with the parameters that train. `task_type` is PEFT's name for the task ("CAUSAL_LM", …)."""

    def optimizer(self, device_type: str) -> str | None:
        """A name from transformers' `OptimizerNames` that replaces the study's optimizer on this device, or None."""
        return None

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with these values together, as (key, message)."""
        yield from ()
