"""LN tuning (Zhao et al. 2023, arXiv 2312.11420), by PEFT: only the normalisation layers train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sweep.variants.peft_adapter import AUTO, Adapter, heads, require_names

if TYPE_CHECKING:
    from peft import LNTuningConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LNTuning(Adapter):
    """Copies of normalisation layers train: one or two vectors of the hidden size for each layer."""

    expected_warning: ClassVar[str] = "Unsupported layer type"  # PEFT (0.21) looks for the sizes of linear layers

    target_modules: str | list[str] = AUTO
    """Last parts of the names of the normalisation layers; "auto": PEFT's choice, else all modules that are norms. A
    module of this name that is no norm is left out, as ModernBERT's first `attn_norm`."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.target_modules, str) and self.target_modules != AUTO:
            yield "target_modules", f"must be a list of names of normalisation layers, [{self.target_modules}], or auto"
        elif not self.target_modules:
            yield "target_modules", "is empty: nothing would train; give names of normalisation layers, or auto"

    def peft_config(self, model: PreTrainedModel, task_type: str) -> LNTuningConfig:
        from peft import LNTuningConfig
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING as MAPPING

        norms = tuple({type(m) for m in model.modules() if "norm" in type(m).__name__.lower()})
        targets = self.target_modules
        if isinstance(targets, str):
            found = dict.fromkeys(n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, norms))
            targets = list(MAPPING.get(model.config.model_type, found))
        require_names(model, targets, norms, "normalisation layer")
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, norms) and any(f".{name}".endswith(f".{target}") for target in targets)
        ]
        return LNTuningConfig(
            task_type=task_type, target_modules=names, modules_to_save=heads(model, task_type) or None
        )
