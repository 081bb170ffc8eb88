"""Variants: ways to make a base model trainable. One file per family, one YAML per variant in `conf/variant/`.

Importing this package or a family's module imports neither torch nor peft, so that configs are checked early.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Gt, Lt, MinLen

from sweep.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TRAINED_FILE = "trained.safetensors"


@dataclass(frozen=True, kw_only=True)
class Variant(ABC):
    """A way to fine-tune, with its own learning rate.

    The learning rate belongs to the variant and not to the conditions. LoRA's best rate is about ten times that of FFT
    (Biderman et al. 2024, arXiv 2405.09673): one rate for all variants would be unfair.
    """

    is_adapter: ClassVar[bool] = False  # whether the trained part is saved apart from the base, and loaded onto it
    trains_all: ClassVar[bool] = False  # whether every weight of the base trains
    quantized: ClassVar[bool] = False  # whether the base is held in fewer than 16 bits during training
    base_bits: ClassVar[int] = 16  # of each base weight in training, or more
    sharding_fault: ClassVar[str | None] = None  # why devices cannot share one model (`train.parallelism=fsdp`)

    name: Annotated[str, MinLen(1)]
    """Name of the variant in settings, reports and MLflow."""
    learning_rate: Annotated[float, Gt(0), Lt(1e9)]
    """Peak learning rate."""

    def quantization(self, compute_dtype: torch.dtype, task_type: str = "CAUSAL_LM", sharded: bool = False) -> Any:
        """The transformers quantisation config for loading the base, or None. Matrices are multiplied in
        `compute_dtype`; a `sharded` model is split over devices."""
        return None

    def prepare(self, model: PreTrainedModel, activation_checkpointing: bool) -> PreTrainedModel:
        """The loaded base as this variant needs it: of a quantised base, some parts are cast to fp32."""
        return model

    @abstractmethod
    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> torch.nn.Module:
        """The model to train: its trainable parameters require gradients. `task_type` is PEFT's name of the task, such
        as "CAUSAL_LM"."""

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write the trained parameters, and no others, into `folder`. For a model that is split over devices, every
        rank must call this; the main one writes."""
        from safetensors.torch import save_file

        from sweep.runtime import distributed

        trained = self.trained(model)
        if distributed.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous() for name, value in trained.items()}, folder / TRAINED_FILE)

    def trained(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The trainable parameters, on the CPU, gathered where they are split."""
        from sweep.runtime.sharding import whole

        return {name: whole(p.detach()).cpu() for name, p in model.named_parameters() if p.requires_grad}

    def restore(self, base: PreTrainedModel, folder: Path) -> torch.nn.Module:
        """A freshly loaded `base` with the parameters that `save` wrote. It gives the logits of the saved model.

        Raises:
            UserError: where the folder's weights are not those of this base.
        """
        from safetensors.torch import load_file

        parameters = dict(base.named_parameters())
        saved = load_file(folder / TRAINED_FILE)
        for name, value in saved.items():
            if name not in parameters or parameters[name].shape != value.shape:
                raise UserError(
                    f"{folder / TRAINED_FILE} holds {name} {tuple(value.shape)}, which this base does not have"
                )
            parameters[name].data = value.to(parameters[name].device)
        return base

    def merge(self, model: torch.nn.Module) -> PreTrainedModel:
        """A plain transformers model whose weights include the trained part. `model` must not be quantised.

        Raises:
            UserError: where the trained part cannot be merged into the base's weights.
        """
        return model

    def with_quantized_base(self) -> Variant | None:
        """The same method on a base in 4 bits; None where there is none, or where the base is quantised already."""
        return None

    @property
    def adapts_all_layers(self) -> bool:
        """Whether the variant is meant to adapt every linear layer of the blocks."""
        return False

    @property
    def extra_positions(self) -> int:
        """How many tokens this variant puts before every sequence."""
        return 0

    def optimizer(self, device_type: str) -> str | None:
        """A name from transformers' `OptimizerNames` that replaces the study's optimizer on this device, or None."""
        return None

    def cautions(self, swept: Collection[str]) -> Iterator[str]:
        """What makes a comparison over the keys `swept` of the variant unfair, such as "r"."""
        yield from ()

    def faults(self) -> Iterator[tuple[str, str]]:
        """Faults of these values in combination, as (key, message)."""
        yield from ()
