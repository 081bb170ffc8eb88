"""The common part of all PEFT families: a frozen base, a small part that trains, and files with that part alone."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sweep.core.errors import UserError, first_line
from sweep.variants import Variant

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

AUTO, ALL_LINEAR = "auto", "all-linear"


@dataclass(frozen=True, kw_only=True)
class Adapter(Variant):
    """A PEFT family. A new classification head trains too, and is saved with the adapter."""

    is_adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True
    expected_warning: ClassVar[str | None] = None  # how a warning of PEFT that is hidden begins

    @abstractmethod
    def peft_config(self, model: PreTrainedModel, task_type: str) -> PeftConfig:
        """PEFT's config for this model.

        Raises:
            UserError: where a name matches nothing; the message lists the names that exist.
        """

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PeftModel:
        from peft import get_peft_model

        base = self.prepare(model, activation_checkpointing)
        config = self.peft_config(base, task_type)
        try:
            with self._without_expected_warning():
                return get_peft_model(base, config)
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"variant {self.name} does not fit {type(model).__name__}: {first_line(error)}") from error

    def save(self, model: PeftModel, folder: Path) -> None:
        from sweep.runtime import distributed, sharding

        state = self.trained(model) if sharding.is_sharded(model) else None
        if distributed.is_main():
            # PEFT would ask the Hub whether the vocabulary has changed, which it has not: so without the embeddings.
            model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
            (folder / "README.md").unlink(missing_ok=True)  # an empty template

    def restore(self, base: PreTrainedModel, folder: Path) -> PeftModel:
        from peft import PeftModel

        with self._without_expected_warning():
            return PeftModel.from_pretrained(self.prepare(base, False), str(folder))

    @contextmanager
    def _without_expected_warning(self) -> Iterator[None]:
        with warnings.catch_warnings():
            if self.expected_warning:
                warnings.filterwarnings("ignore", message=self.expected_warning)
            yield

    def merge(self, model: PeftModel) -> PreTrainedModel:
        if not self.mergeable:
            raise UserError(
                f"variant {self.name} adds to the input and not to the weights, so it cannot be merged into them. "
                "Export it as it is: merge=false"
            )
        _unwrap_heads(model)
        _untie(model)
        return model.merge_and_unload(safe_merge=True)


def heads(model: PreTrainedModel, task_type: str) -> list[str]:
    """The modules outside of the base in a model for classification. They are new, so they train with every variant.

    They are found by structure and not by name: DistilBERT's `pre_classifier` is as new as its `classifier`, and PEFT
    recognises only the second. A pooler that the checkpoint lacks is new too. Empty for language models, whose head is
    part of the checkpoint.
    """
    if task_type == "CAUSAL_LM" or task_type == "SEQ_2_SEQ_LM":
        return []
    outside = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]
    return [*outside, *getattr(model, "randomly_initialised", [])]


def _unwrap_heads(model: PeftModel) -> None:
    """Put the trained heads back in place of their wrappers, before PEFT (0.21) merges. With LN tuning PEFT leaves the
    heads wrapped, so that the saved model is loaded with a new head. IA³ cannot be merged while a head of several
    layers (RoBERTa) is wrapped."""
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapter])


def _untie(model: PeftModel) -> None:
    """Give each adapted layer a weight of its own. PEFT (0.21) merges in place: an adapter on an output embedding that
    is tied to the input embedding would change both."""
    from torch import nn

    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name.endswith(".base_layer") and isinstance(weight, nn.Parameter) and uses[id(weight)] > 1:
            module.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            model.get_base_model().config.tie_word_embeddings = False


def has_conv1d(model: nn.Module) -> bool:
    """Whether the model keeps weights as (in, out), as GPT-2 does."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def name_faults(targets: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    """Faults of `target_modules` that are visible without a model."""
    if isinstance(targets, str) and targets not in (AUTO, ALL_LINEAR):
        yield "target_modules", f"must be a list of module names, [{targets}], or all-linear, or auto"
    elif not targets:
        yield "target_modules", "is empty: nothing would train; give module names, or all-linear"


def linear_targets(
    model: PreTrainedModel, targets: str | Sequence[str], mapping: Mapping[str, Any]
) -> str | Sequence[str]:
    """Module names, or "all-linear". "auto" is PEFT's choice for architectures that PEFT supports, else all-linear:
    `mapping` has PEFT's choice by model type.

    Raises:
        UserError: where a name matches no linear module. PEFT only warns as long as another name matches, and fewer
            matrices than intended would train.
    """
    if targets == AUTO:
        known = mapping.get(model.config.model_type, ALL_LINEAR)
        return known if isinstance(known, str) else list(known)
    if isinstance(targets, str):
        return targets
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    require_names(model, targets, (nn.Linear, Conv1D), "linear module")
    return list(targets)


def require_names(model: nn.Module, targets: Sequence[str], kinds: tuple[type, ...] | type, what: str) -> None:
    """Raises UserError where one of `targets` is the last part of no module of these kinds."""
    names = [name for name, module in model.named_modules() if name and isinstance(module, kinds)]
    missing = [t for t in targets if not any(n == t or n.endswith(f".{t}") for n in names)]
    if missing:
        have = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names)) or "none"
        raise UserError(
            f"variant.target_modules: {', '.join(map(repr, missing))} matches no {what} of {type(model).__name__}; "
            f"it has: {have}"
        )
