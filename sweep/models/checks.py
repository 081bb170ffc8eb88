"""Does a checkpoint fit the task: its architecture before, its weights after loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweep.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sweep.models import Model

_HEADS = {
    "AutoModelForCausalLM": "task: generation",
    "AutoModelForSeq2SeqLM": "task: seq2seq",
    "AutoModelForSequenceClassification": "task: classification",
}
_KERNELS = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
# New in most checkpoints, and small: a pooled output that masked language models are kept without.
_POOLERS = ("pooler",)


def check_architecture(model: Model, auto_class: type) -> None:
    """Raises UserError where the architecture has no such head, or lacks the attention kernel that was asked for."""
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
    architecture = auto_class._model_mapping[type(config)]
    flag = _KERNELS.get(model.attention)
    if flag and not getattr(architecture, flag, False):
        able = [name for name, other in _KERNELS.items() if getattr(architecture, other, False)]
        raise UserError(
            f"model.attention = {model.attention}: {architecture.__name__} has no such kernel in transformers; use "
            f"model.attention={[*able, 'eager'][0]}"
        )


def head_modules(model: Model, auto_class: type) -> list[str] | None:
    """What stands beside the base in a classification model: a new head must train, and 4-bit weights do not. None for
    other models, whose heads transformers leaves as they are by itself."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if auto_class is not AutoModelForSequenceClassification:
        return None
    with torch.device("meta"):
        empty = auto_class.from_config(_config(model), trust_remote_code=model.trust_remote_code)
    return [name for name, _ in empty.named_children() if name != empty.base_model_prefix]


def check_loaded(path: str, model: PreTrainedModel, found: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules whose weights the checkpoint does not have, by their names at the top of the model.

    Raises:
        UserError: where these are more than a new head: what is trained would begin at random.
    """
    base = f"{model.base_model_prefix}."
    without = set(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]}
    headless = type(model).__name__.endswith("ForSequenceClassification")
    new, lost = set(), []
    for key in sorted(without):
        inside = key.startswith(base)
        if not headless or (inside and key.removeprefix(base).split(".")[0] not in _POOLERS):
            lost.append(key)
        else:
            new.add(".".join(key.split(".")[: 2 if inside else 1]))
    if lost:
        shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise UserError(
            f"the checkpoint {path} has no weights for {shown} of {type(model).__name__}, so that they would begin at "
            "random: it is damaged, or of another architecture than its config.json says"
        )
    return tuple(sorted(new))


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
