"""Partial fine-tuning: some parameters of the base train, chosen by name or by layer; the others stay frozen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from sweep.core.errors import UserError
from sweep.variants import Variant
from sweep.variants.peft_adapter import heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Partial(Variant):
    """Parameters by name, and the last blocks (BitFit: Ben Zaken et al. 2021, arXiv 2106.10199). A new classification
    head trains too."""

    parameters: list[str] = field(default_factory=list)
    """Patterns of the names of parameters that train, for example "*.bias"."""
    last_layers: Annotated[int, Ge(0)] = 0
    """Number of last blocks that train."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.parameters and not self.last_layers:
            yield "parameters", "is empty, and last_layers is 0: nothing would train; name parameters, such as '*.bias'"

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PreTrainedModel:
        """Raises UserError where a pattern matches no parameter; the message lists those that exist."""
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.parameters:
            if not any(fnmatchcase(name, pattern) for name in names):
                have = ", ".join(dict.fromkeys(".".join(name.split(".")[-2:]) for name in names))
                raise UserError(
                    f"variant.parameters: {pattern!r} matches no parameter of {type(model).__name__}; their names end "
                    f"in: {have}"
                )
        blocks = self._last_blocks(model, names)
        patterns = [*self.parameters, *blocks, *(f"{head}.*" for head in heads(model, task_type))]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
        if activation_checkpointing:  # the first trainable parameter may follow frozen blocks
            model.enable_input_require_grads()
        return model

    def _last_blocks(self, model: PreTrainedModel, names: list[str]) -> list[str]:
        """Patterns for the last blocks. A block is the first numbered module in a name, as in model.layers.3. The last
        blocks of an encoder-decoder are those of its decoder."""
        if not self.last_layers:
            return []
        if model.config.is_encoder_decoder:
            names = [name for name in names if "decoder." in name]
        found = [match for match in (re.match(r"(.*?\.)(\d+)\.", name) for name in names) if match]
        prefix = found[0][1] if found else ""
        count = 1 + max((int(match[2]) for match in found if match[1] == prefix), default=-1)
        if self.last_layers > count:
            raise UserError(f"variant.last_layers = {self.last_layers} is more than the {count} blocks of this model")
        return [f"{prefix}{index}.*" for index in range(count - self.last_layers, count)]
