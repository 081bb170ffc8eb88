"""Base models: where they come from and how they are loaded. One file per kind of source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sweep.errors import UserError, first_line
from sweep.report import Report

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """A base model that `from_pretrained` can load.

    `dtype` is the precision that weights are held in: "auto" is the checkpoint's own. What matrices are multiplied in
    is `train.precision`.
    """

    places: ClassVar[tuple[str, ...]] = ()  # keys that say where something is kept: no conditions

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = False

    @abstractmethod
    def prepare(self, report: Report) -> Mapping[str, str]:
        """Make sure the model is there (build or download it), and tell what exactly it is.

        Called in a process of its own before any run. Returns facts that belong to the conditions: a digest, a commit.
        """

    @abstractmethod
    def location(self) -> tuple[str, str | None]:
        """Folder or Hub id, and the revision, for `from_pretrained`."""

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """This model's config, so that it loads exactly what `prepare` told of."""
        return config

    def architecture(self) -> PretrainedConfig:
        """What the model is made of, from its config.json alone: no weights are needed, and none are loaded."""
        from transformers import AutoConfig

        path, revision = self.location()
        try:
            return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the config of {path} cannot be had: {first_line(error)}\nCheck the name and the network; a gated "
                "model needs its terms accepted on the Hub and a token (`hf auth login`, or HF_TOKEN); a folder "
                "with its config.json is enough."
            ) from error

    @property
    def max_positions(self) -> int | None:
        """The longest sequence in tokens, where it is known before loading."""
        return None

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, padding on the right, with a padding token (the end token where it has none of its own)."""
        from transformers import AutoTokenizer

        path, revision = self.location()
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=self.trust_remote_code)
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load(self, auto_class: type, quantization: Any | None, device: str) -> PreTrainedModel:
        """The base with its weights on `device`, quantised while it is loaded where `quantization` is given."""
        from sweep.precision import dtype_of

        path, revision = self.location()
        model = auto_class.from_pretrained(
            path,
            revision=revision,
            dtype="auto" if self.dtype == "auto" else dtype_of(self.dtype),
            attn_implementation=self.attention,
            trust_remote_code=self.trust_remote_code,
            use_safetensors=True,
            device_map={"": device},
            quantization_config=quantization,
        )
        model.config.use_cache = False
        return model
