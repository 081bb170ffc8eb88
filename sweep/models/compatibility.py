"""Does a checkpoint fit the task: its architecture before, its weights after loading."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.core.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sweep.models import Model

log = logging.getLogger(__name__)
_HEADS = {
    "AutoModelForCausalLM": "task: generation",
    "AutoModelForSeq2SeqLM": "task: seq2seq",
    "AutoModelForSequenceClassification": "task: classification",
}
_KERNELS = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
# New in most checkpoints, and small: a pooled output that masked language models are kept without.
_POOLERS = ("pooler",)


def check_architecture(model: Model, auto_class: type, *, here: bool = True) -> None:
    """Raises UserError where the architecture has no such head, or lacks the attention kernel that was asked for. The
    kernel's package is asked for only where the run is to be `here`."""
    path, _ = model.location()
    config = _config(model)
    if type(config) not in auto_class._model_mapping:
        if model.trust_remote_code and hasattr(config, "auto_map"):
            return
        others = [hint for name, hint in _HEADS.items() if name != auto_class.__name__ and _fits(name, config)]
        raise UserError(
            f"{path} is a model of type {config.model_type}, for which transformers has no {auto_class.__name__}; "
            + (f"it fits {' or '.join(others)}" if others else "no task here fits it")
        )
    from transformers.utils import is_flash_attn_2_available

    if here and model.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "model.attention = flash_attention_2 needs a CUDA GPU and the package flash-attn (pip install flash-attn); "
            "use model.attention=sdpa, which takes a fused kernel too"
        )
    architecture = auto_class._model_mapping[type(config)]
    flag = _KERNELS.get(model.attention)
    if flag and not getattr(architecture, flag, False):
        able = [name for name, other in _KERNELS.items() if getattr(architecture, other, False)]
        raise UserError(
            f"model.attention = {model.attention}: {architecture.__name__} has no such kernel in transformers; use "
            f"model.attention={[*able, 'eager'][0]}"
        )


def check_checkpointing(model: Model, auto_class: type) -> None:
    """Raises UserError where activations cannot be computed again."""
    architecture = auto_class._model_mapping.get(type(_config(model)), None)
    if architecture is not None and not architecture.supports_gradient_checkpointing:
        raise UserError(
            f"train.activation_checkpointing = true: {architecture.__name__} does not offer it in transformers; use "
            "train.activation_checkpointing=false, and a smaller train.micro_batch_size where memory is short"
        )


def check_loaded(path: str, model: PreTrainedModel, found: Mapping[str, Any]) -> list[str]:
    """A new head for classification begins at random, and the pooler before it may; anything else may not. Returns the
    names of such poolers: they must train.

    Raises:
        UserError: where the checkpoint lacks weights of the base, or of a language model's head.
    """
    base = f"{model.base_model_prefix}."
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    without = sorted(set(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]})
    inside = [key for key in without if key.startswith(base)]
    poolers = [key for key in inside if classifies and key.removeprefix(base).split(".")[0] in _POOLERS]
    lost = [key for key in (inside if classifies else without) if key not in poolers]
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise UserError(
            f"the checkpoint {path} has no weights for {shown} of {type(model).__name__}, so that they would begin at "
            "random: it is damaged, or of another architecture than its config.json says"
        )
    names = sorted({base + key.removeprefix(base).split(".")[0] for key in poolers})
    if names:
        log.warning("%s has no weights for %s: it begins at random, and trains with the head", path, ", ".join(names))
    return names


def _config(model: Model) -> Any:
    from transformers import AutoConfig

    path, revision = model.location()
    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=model.trust_remote_code)
    except Exception as error:
        raise UserError(f"{path}: its config.json cannot be used: {first_line(error)}") from error


def _fits(auto_class: str, config: Any) -> bool:
    import transformers

    return type(config) in getattr(transformers, auto_class)._model_mapping
