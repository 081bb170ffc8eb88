"""Trained tokens before every sequence: prompt tuning (Lester et al. 2021, arXiv 2104.08691) and prefix tuning (Li &
Liang 2021, arXiv 2101.00190), by PEFT."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from sweep.core.errors import UserError
from sweep.variants.peft_adapter import Adapter

if TYPE_CHECKING:
    from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class _Prompt(Adapter):
    mergeable: ClassVar[bool] = False
    sharding_fault: ClassVar[str] = (
        "PEFT (0.21) reads virtual tokens outside of the forward that FSDP gathers them for; use a lora variant"
    )

    num_virtual_tokens: Annotated[int, Ge(1)] = 20
    """Number of virtual tokens before each sequence."""

    @property
    def extra_positions(self) -> int:
        return self.num_virtual_tokens


@dataclass(frozen=True, kw_only=True)
class PromptTuning(_Prompt):
    """`num_virtual_tokens` embeddings train, each as wide as the hidden states."""

    init: Literal["sample_vocab", "random"] = "sample_vocab"
    """How the embeddings start: as those of random words of the vocabulary, or as noise."""

    def peft_config(self, model: PreTrainedModel, task_type: str) -> PromptTuningConfig:
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type=task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            prompt_tuning_init=self.init.upper(),
            token_dim=_width(model),
            num_attention_heads=getattr(model.config, "num_attention_heads", 1),  # PEFT demands it, and does not use it
        )

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PeftModel:
        if task_type == "SEQ_CLS" and takes_cache(model):
            raise UserError(
                f"variant {self.name} gives embeddings to the model instead of token ids, and {type(model).__name__} "
                "needs ids to find the end of a text: its answers would depend on the padding. Use another variant, "
                "such as prefix_tuning or lora_r8"
            )
        return super().wrap(model, task_type, activation_checkpointing)


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(_Prompt):
    """Keys and values of `num_virtual_tokens` train in every layer: 2 · layers · tokens · width of keys.

    The model gets them in its cache. Activation checkpointing turns the cache off, so the two exclude each other.
    """

    def peft_config(self, model: PreTrainedModel, task_type: str) -> PrefixTuningConfig:
        from peft import PrefixTuningConfig

        heads = model.config.num_attention_heads
        cached = _cached_heads(model.config)
        return PrefixTuningConfig(
            task_type=task_type,
            num_virtual_tokens=self.num_virtual_tokens,
            token_dim=_width(model) * cached // heads,
            num_attention_heads=cached,
        )

    def prepare(self, model: PreTrainedModel, activation_checkpointing: bool) -> PreTrainedModel:
        if activation_checkpointing:
            raise UserError(
                f"variant {self.name} gives its prefix to the model in the cache, which activation checkpointing turns "
                "off; set train.activation_checkpointing=false for the whole study, or leave this variant out"
            )
        if not takes_cache(model):
            raise UserError(
                f"variant {self.name} needs a model that accepts a cache of keys and values, and "
                f"{type(model).__name__} does not; use another variant, such as prompt_tuning"
            )
        return model


def takes_cache(model: PreTrainedModel) -> bool:
    """Whether the model accepts keys and values of earlier tokens, as decoders do."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def _width(model: PreTrainedModel) -> int:
    """The width of the embeddings. Not every architecture uses the same name for it in its config."""
    return model.get_input_embeddings().weight.shape[1]


def _cached_heads(config: PretrainedConfig) -> int:
    """The heads of keys and values in the cache: one for multi-query attention (Shazeer 2019, arXiv 1911.02150). PEFT
    (0.21) reads `num_key_value_heads` alone, which Falcon and GPT-BigCode do not have."""
    heads = config.num_attention_heads
    if hasattr(config, "num_key_value_heads"):
        return heads  # PEFT replaces it
    if getattr(config, "new_decoder_architecture", False):
        return config.num_kv_heads
    return 1 if getattr(config, "multi_query", False) else heads
