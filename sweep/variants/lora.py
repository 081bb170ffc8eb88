"""LoRA (Hu et al. 2021, arXiv 2106.09685) and QLoRA (Dettmers et al. 2023, arXiv 2305.14314), by PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Lt

from sweep.errors import UserError
from sweep.variants import Variant

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LoRA(Variant):
    """Low-rank adapters on a frozen base: r·(d_in + d_out) trainable parameters per adapted matrix.

    `target_modules` are names of modules (their last part), or "all-linear" for every linear layer but the output head.
    """

    r: Annotated[int, Ge(1)]
    alpha: Annotated[float, Gt(0), Lt(1e9)]
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    target_modules: str | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False

    def faults(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":
            yield (
                "target_modules",
                f"must be a list of module names, [{self.target_modules}], or all-linear",
            )
        if not self.target_modules:
            yield "target_modules", "is empty: nothing would train; give module names, or all-linear"

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PeftModel:
        from peft import LoraConfig, get_peft_model

        self._check_targets(model)
        return get_peft_model(
            model,
            LoraConfig(
                task_type=task_type,
                r=self.r,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                target_modules=self.target_modules,
                use_rslora=self.rslora,
                use_dora=self.dora,
                bias="none",
            ),
        )

    def _check_targets(self, model: PreTrainedModel) -> None:
        """PEFT only warns where some of the names match nothing, and the rank is then spent on fewer matrices."""
        if isinstance(self.target_modules, str):
            return
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
        missing = [t for t in self.target_modules if not any(n == t or n.endswith(f".{t}") for n in names)]
        if missing:
            have = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
            raise UserError(
                f"variant.target_modules: {', '.join(map(repr, missing))} matches no linear module of "
                f"{type(model).__name__}; it has: {have}"
            )


@dataclass(frozen=True, kw_only=True)
class QLoRA(LoRA):
    """LoRA on a base held in 4-bit NF4 with double quantisation.

    The base is quantised as it is loaded; norms, embeddings and head are cast to fp32 by PEFT's
    `prepare_model_for_kbit_training`. Where CUDA is present the optimizer is paged AdamW, whose state is managed memory
    that `max_memory_allocated` does not see.
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    paged_optimizer: bool = True

    def quantization(self, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=compute_dtype,
        )

    def wrap(self, model: PreTrainedModel, task_type: str, activation_checkpointing: bool) -> PeftModel:
        from peft import prepare_model_for_kbit_training

        self._keep_gradients_after_evaluation(model)
        prepared = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=activation_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
        return super().wrap(prepared, task_type, activation_checkpointing)

    @staticmethod
    def _keep_gradients_after_evaluation(model: PreTrainedModel) -> None:
        """Stop bitsandbytes (0.50) from repacking weights for a CPU kernel that has no backward.

        On CPUs with AVX512-BF16, one evaluation repacks every 4-bit weight; training steps after it then run the
        inference kernel, and gradients through the frozen base are silently wrong (norm ratio 0.18 was measured).
        """
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False

    def optimizer(self, device_type: str) -> str | None:
        return "paged_adamw_32bit" if self.paged_optimizer and device_type == "cuda" else None
