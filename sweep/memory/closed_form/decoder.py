"""The sizes of a dense gated decoder, from its config.json, for the closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sweep.memory.prediction import Machine

# Families with this layer: norm, attention with rotary positions, norm, gated product. Others keep other tensors.
COVERED = ("llama", "mistral", "qwen2")
_DTYPES: Mapping[str, Literal["bf16", "fp16"]] = {"bfloat16": "bf16", "float16": "fp16"}


class NotCovered(Exception):
    """The closed form has no term for a part of the run; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Sizes of a decoder. `bias` lists the lengths of the biases of one layer; `dtype` is that of the checkpoint."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_heads: int
    head_width: int
    tied: bool
    bias: tuple[int, ...]
    dtype: Literal["fp32", "bf16", "fp16"]

    @classmethod
    def of(cls, config: Mapping[str, Any], attention: str) -> Decoder:
        """From the keys of config.json.

        Raises:
            NotCovered: for another family, another activation, or attention that holds the score matrix.
        """
        family = config.get("model_type")
        if family not in COVERED:
            raise NotCovered(f"the model is a {family}; it covers {', '.join(COVERED)}")
        if config.get("hidden_act", "silu") != "silu":
            raise NotCovered(f"the activation is {config['hidden_act']}, not silu")
        if attention == "eager":
            raise NotCovered("eager attention holds the score matrix; use model.attention=sdpa")
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        key_heads = config.get("num_key_value_heads") or heads
        biased = family == "qwen2" or bool(config.get("attention_bias"))
        if config.get("mlp_bias") or (biased and family == "llama"):
            raise NotCovered("its matrices have biases")
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            heads=heads,
            key_heads=key_heads,
            head_width=width,
            tied=bool(config.get("tie_word_embeddings")),
            bias=(heads * width, key_heads * width, key_heads * width) if biased else (),
            dtype=_DTYPES.get(dtype, "fp32"),
        )

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer: name → (in, out)."""
        hidden, queries, keys = self.hidden, self.heads * self.head_width, self.key_heads * self.head_width
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, self.intermediate),
            "up_proj": (hidden, self.intermediate),
            "down_proj": (self.intermediate, hidden),
        }

    @property
    def linear_per_layer(self) -> int:
        """Elements of the matrices of one layer."""
        return sum(math.prod(shape) for shape in self.linear.values())

    @property
    def biases(self) -> int:
        return self.layers * sum(self.bias)

    @property
    def other_parameters(self) -> int:
        """Embeddings, head, norms and biases."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + (2 * self.layers + 1) * self.hidden + self.biases

    @property
    def parameters(self) -> int:
        return self.layers * self.linear_per_layer + self.other_parameters

    def check_kernel(self, compute_bytes: int, padded: bool, machine: Machine) -> None:
        """Raises NotCovered where PyTorch has no fused kernel: on CUDA, for grouped queries in fp32 without a mask."""
        grouped = self.key_heads != self.heads and not padded
        if machine.kind == "cuda" and compute_bytes == 4 and grouped:
            raise NotCovered("in fp32, grouped queries go to the kernel that holds the score matrix")
