"""Whether a checkpoint fits the task: its architecture before loading, its weights after."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.core.errors import UserError
from sweep.tasks.labels import head_order

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
# The auto classes of the tasks here: the task that a user can choose, and transformers' mapping of configs to models.
_HEADS = {
    "AutoModelForCausalLM": ("task: generation", "MODEL_FOR_CAUSAL_LM_MAPPING"),
    "AutoModelForSeq2SeqLM": ("task: seq2seq", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING"),
    "AutoModelForSequenceClassification": ("task: classification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
}
# Private flags of transformers' models: the public way to ask is to build the model and to catch the error.
KERNEL_FLAGS = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
_POOLER = "pooler"  # small, and missing in most checkpoints: masked language models are saved without it


def check_architecture(
    path: str, config: PretrainedConfig, auto_class: type, attention: str, *, own_code: bool = False, here: bool = True
) -> None:
    """Raises UserError where the architecture has no head for the task, or no such attention kernel. A run on this
    machine (`here`) also needs the kernel's package. `own_code`: the checkpoint's own code may define the model."""
    import transformers
    from transformers.utils import is_flash_attn_2_available

    architecture = model_class(auto_class, config)
    if architecture is None:
        if auto_class.__name__ not in _HEADS or (own_code and hasattr(config, "auto_map")):
            return
        others = [hint for hint, mapping in _HEADS.values() if type(config) in getattr(transformers, mapping)]
        raise UserError(
            f"{path} is a model of type {config.model_type}, for which transformers has no {auto_class.__name__}; "
            + (f"it fits {' or '.join(others)}" if others else "no task here fits it")
        )
    if here and attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "model.attention = flash_attention_2 needs a CUDA GPU and the package flash-attn (pip install flash-attn); "
            "use model.attention=sdpa, which takes a fused kernel too"
        )
    able = [*kernels(architecture), "eager"]
    if attention not in able:
        raise UserError(
            f"model.attention = {attention}: {architecture.__name__} has no such kernel in transformers; use "
            f"model.attention={able[0]}"
        )


def model_class(auto_class: type, config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The model that transformers builds from this config for a task; None where it has none, or where the task is not
    one of the tasks here."""
    import transformers

    _, mapping = _HEADS.get(auto_class.__name__, ("", ""))
    return getattr(transformers, mapping).get(type(config), None) if mapping else None


def kernels(architecture: type[PreTrainedModel]) -> list[str]:
    """The fused attention kernels that transformers has for this model, by their names in `model.attention`."""
    return [name for name, flag in KERNEL_FLAGS.items() if getattr(architecture, flag, False)]


def check_checkpointing(config: PretrainedConfig, auto_class: type) -> None:
    """Raises UserError where the architecture does not support activation checkpointing."""
    architecture = model_class(auto_class, config)
    if architecture is not None and not architecture.supports_gradient_checkpointing:
        raise UserError(
            f"train.activation_checkpointing = true: {architecture.__name__} does not support it in transformers; use "
            "train.activation_checkpointing=false, and a smaller train.micro_batch_size where memory is short"
        )


def check_loaded(path: str, model: PreTrainedModel, found: Mapping[str, Any]) -> list[str]:
    """Check that the checkpoint had all weights of the base. A new head for classification is randomly initialised, and
    the pooler before it may be. Returns the names of such poolers: they must train. `found` is transformers' loading
    info.

    Raises:
        UserError: where the checkpoint lacks weights of the base, or of a language model's head.
    """
    base = f"{model.base_model_prefix}."
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    without = sorted(set(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]})
    inside = [key for key in without if key.startswith(base)]
    poolers = [key for key in inside if classifies and key.removeprefix(base).split(".")[0] == _POOLER]
    lost = [key for key in (inside if classifies else without) if key not in poolers]
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise UserError(
            f"the checkpoint {path} has no weights for {shown} of {type(model).__name__}, which would be randomly "
            "initialised: it is damaged, or of another architecture than its config.json states"
        )
    if not poolers:
        return []
    log.warning("%s has no weights for %s: it is randomly initialised, and trains with the head", path, base + _POOLER)
    return [base + _POOLER]


def renew_head(model: PreTrainedModel, checkpoint: PretrainedConfig, found: Mapping[str, Any]) -> None:
    """Initialise the layer that answers anew, where the checkpoint's head is for other labels than the model's: of the
    same number of labels, transformers keeps its weights under the new names. `found` is transformers' loading info."""
    import torch

    labels = list(model.config.id2label.values())
    if head_order(labels, checkpoint.id2label) == labels:
        return
    inside = set(getattr(model, model.base_model_prefix).modules())
    new = set(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]}
    spread = getattr(model.config, "initializer_range", None) or getattr(model.config, "init_std", None) or 0.02
    for name, module in model.named_modules():
        if module in inside or f"{name}.weight" in new or not isinstance(module, torch.nn.Linear):
            continue
        if module.out_features == len(labels) and module.weight.is_floating_point():
            torch.nn.init.normal_(module.weight, std=spread)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
