"""IA³ (Liu et al. 2022, arXiv 2205.05638), by PEFT: learned vectors that scale keys, values and inner activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweep.variants.peft_adapter import ALL_LINEAR, AUTO, Adapter, has_conv1d, heads, linear_targets, name_faults

if TYPE_CHECKING:
    from peft import IA3Config
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class IA3(Adapter):
    """One vector for each adapted matrix: d_out parameters, or d_in for a matrix in `feedforward_modules`."""

    target_modules: str | list[str] = AUTO
    """Last parts of the names of the adapted modules; "auto": PEFT's choice, else the outputs of all linear layers."""
    feedforward_modules: list[str] | None = None
    """The target modules whose vector scales the input instead of the output."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from name_faults(self.target_modules)
        if self.feedforward_modules and not isinstance(self.target_modules, list):
            yield "feedforward_modules", "needs target_modules as a list that holds them too"
        elif self.feedforward_modules and set(self.feedforward_modules) - set(self.target_modules):
            yield "feedforward_modules", "must be among target_modules"

    def peft_config(self, model: PreTrainedModel, task_type: str) -> IA3Config:
        from peft import IA3Config
        from peft.utils.constants import (
            TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
            TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
        )

        targets = linear_targets(model, self.target_modules, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING)
        feedforward = self.feedforward_modules or []
        if self.target_modules == AUTO and targets != ALL_LINEAR:
            feedforward = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model.config.model_type, [])
        return IA3Config(
            task_type=task_type,
            target_modules=targets,
            feedforward_modules=list(feedforward),
            fan_in_fan_out=has_conv1d(model),
            modules_to_save=heads(model, task_type) or None,
        )
