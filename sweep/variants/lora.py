"""LoRA (Hu et al. 2021, arXiv 2106.09685), also on a base in 8 or in 4 bits, by PEFT."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Lt

from sweep.variants.peft_adapter import ALL_LINEAR, Adapter, has_conv1d, heads, linear_targets, name_faults

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, PreTrainedModel

SCALE = 2.0  # alpha / r of the adapters, unless alpha is given
# Names of classification heads in transformers. They train, so bitsandbytes must not quantise them. Each is a regular
# expression for the beginning of a module's name.
HEADS = ("classifier", "pre_classifier", "score", "classification_head", "head", "dense", "logits_proj",
         "sequence_summary", r"(.*\.)?pooler")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """Low-rank adapters on a frozen base: r·(d_in + d_out) trainable parameters for each adapted matrix."""

    # PEFT (0.21) writes patterns for the experts of a mixture, and adapts the experts, but finds no match for a part.
    expected_warning: ClassVar[str] = "The following (rank|alpha)_pattern keys did not match"

    r: Annotated[int, Ge(1)]
    """Rank of the two adapter matrices."""
    alpha: Annotated[float, Gt(0), Lt(1e9)] | None = None
    """Numerator of the adapter's scale alpha/r; null: 2·r, or 2·√r with rsLoRA, so that every rank has the scale 2."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Dropout probability of the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Last parts of the names of the adapted modules; "all-linear": all but the head; "auto": PEFT's choice."""
    use_rslora: bool = False
    """Whether the scale is alpha/√r (Kalajdzievski 2023, arXiv 2312.03732)."""
    use_dora: bool = False
    """Whether a magnitude for each output trains too: d_out more parameters (Liu et al. 2024, arXiv 2402.09353)."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from name_faults(self.target_modules)

    @property
    def adapts_all_layers(self) -> bool:
        return self.target_modules == ALL_LINEAR

    def cautions(self, swept: Collection[str]) -> Iterator[str]:
        if "r" in swept and "alpha" not in swept and self.alpha is not None:
            yield (
                f"variant.alpha = {self.alpha:g} is the same for every variant.r: the adapter's scale alpha/r then "
                "differs from rank to rank, and acts as another learning rate. variant.alpha=null gives every rank one "
                "scale"
            )

    def _alpha(self) -> float:
        """A scale that depends on the rank would confound a comparison of ranks: the scale acts as a learning rate."""
        return self.alpha or SCALE * (math.sqrt(self.r) if self.use_rslora else self.r)

    def with_quantized_base(self) -> QLoRA | None:
        """The same adapters on a base in 4 bits."""
        own = {field.name: getattr(self, field.name) for field in fields(LoRA)}
        return None if self.quantized else QLoRA(**{**own, "name": f"qlora_r{self.r}"})

    def peft_config(self, model: PreTrainedModel, task_type: str) -> LoraConfig:
        from peft import LoraConfig
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as MAPPING

        return LoraConfig(
            task_type=task_type,
            r=self.r,
            lora_alpha=self._alpha(),
            lora_dropout=self.dropout,
            target_modules=linear_targets(model, self.target_modules, MAPPING),
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            bias="none",
            fan_in_fan_out=has_conv1d(model),
            modules_to_save=heads(model, task_type) or None,
        )


@dataclass(frozen=True, kw_only=True)
class _OnQuantizedBase(LoRA):
    """The base is quantised during loading. PEFT's `prepare_model_for_kbit_training` casts norms, embeddings and head
    to fp32."""

    quantized: ClassVar[bool] = True
    # The saved part may be loaded onto a base that is not quantised. GPT-2's weights are (in, out) there, and (out, in)
    # where quantised: PEFT adapts.
    expected_warning: ClassVar[str] = f"fan_in_fan_out is set to False|{LoRA.expected_warning}"

    def prepare(self, model: PreTrainedModel, activation_checkpointing: bool) -> PreTrainedModel:
        from peft import prepare_model_for_kbit_training

        if not getattr(model, "is_quantized", False):  # loaded again in 16 bits, for merging
            return model
        # The Trainer turns activation checkpointing on, as for every variant; PEFT uses a deprecated name for it.
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


@dataclass(frozen=True, kw_only=True)
class QLoRA(_OnQuantizedBase):
    """LoRA on a base in 4 bits (Dettmers et al. 2023, arXiv 2305.14314)."""

    base_bits: ClassVar[int] = 4

    quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type of the base's weights."""
    double_quantization: bool = True
    """Whether the quantisation constants are quantised too: 0.516 bytes per parameter, not 0.563."""
    paged_optimizer: bool = True
    """Whether paged AdamW replaces `train.optimizer` on CUDA. Its state can leave the GPU, and counts in the peak."""

    def quantization(
        self, compute_dtype: torch.dtype, task_type: str = "CAUSAL_LM", sharded: bool = False
    ) -> BitsAndBytesConfig:
        import torch
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=compute_dtype,
            # The same bits with another type: FSDP splits floats, and keeps bytes whole on every rank.
            bnb_4bit_quant_storage=compute_dtype if sharded else torch.uint8,
            llm_int8_skip_modules=kept_whole(task_type),
        )

    def prepare(self, model: PreTrainedModel, activation_checkpointing: bool) -> PreTrainedModel:
        """Stops bitsandbytes (0.50) from repacking weights for a CPU kernel that has no backward: on CPUs with
        AVX512-BF16, one evaluation repacks every 4-bit weight. Later training steps then run the inference kernel, and
        gradients through the frozen base are wrong without a warning (norm ratio 0.18 was measured)."""
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False
        return super().prepare(model, activation_checkpointing)

    def optimizer(self, device_type: str) -> str | None:
        return "paged_adamw_32bit" if self.paged_optimizer and device_type == "cuda" else None


@dataclass(frozen=True, kw_only=True)
class LoRA8bit(_OnQuantizedBase):
    """LoRA on a base in 8 bits (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339)."""

    base_bits: ClassVar[int] = 8
    sharding_fault: ClassVar[str] = (
        "FSDP would separate bitsandbytes' 8-bit weights from their scales; use a qlora variant"
    )

    outlier_threshold: Annotated[float, Ge(0)] = 6.0
    """Input columns with a larger absolute value are multiplied in 16 bits; 0 is none."""

    def quantization(
        self, compute_dtype: torch.dtype, task_type: str = "CAUSAL_LM", sharded: bool = False
    ) -> BitsAndBytesConfig:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=self.outlier_threshold,
            llm_int8_skip_modules=kept_whole(task_type),
        )


def kept_whole(task_type: str) -> list[str] | None:
    """Modules that are not quantised; None for transformers' choice, the output embedding. transformers would quantise
    a new classification head, and integers cannot train."""
    return None if task_type in ("CAUSAL_LM", "SEQ_2_SEQ_LM") else [f"^{name}" for name in HEADS]
