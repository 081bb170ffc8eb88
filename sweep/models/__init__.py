"""Base models: their sources, one file each, and how they are loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from sweep.core.errors import UserError, first_line
from sweep.core.reporter import Reporter

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

RateKind = Literal[
    "full", "adapter", "rslora", "ia3", "ln_tuning", "prompt_tuning", "prefix_tuning", "last_layer", "bitfit"
]  # kinds of variants for which a base may have a learning rate of its own


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """A base model that `from_pretrained` can load."""

    location_keys: ClassVar[tuple[str, ...]] = ()  # keys that are paths of this machine: not part of the conditions

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision that the weights are held in. "auto" is the checkpoint's own. Products use `train.precision`."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of Transformers."""
    trust_remote_code: bool = False
    """Whether code of the checkpoint's author may run on this machine."""
    learning_rates: dict[RateKind, Annotated[float, Gt(0)]] | None = None
    """Learning rates for this base by kind of variant, which presets of variants take before their own."""
    usual: dict[Literal["max_length", "max_steps", "epochs", "n_validation"], Annotated[float, Gt(0)] | None] | None = (
        None
    )
    """Defaults of `train.max_length`, `train.max_steps`, `train.epochs` and `task.data.n_validation` for this base."""

    @abstractmethod
    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """Build or download the model where it is missing, and identify it.

        Called in a process of its own before any run. Returns facts that belong to the conditions: a digest, a commit.
        """

    @abstractmethod
    def location(self) -> tuple[str, str | None]:
        """Folder or Hub id, and the revision, for `from_pretrained`."""

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """This model's config, changed so that it loads exactly the model that `prepare` identified."""
        return config

    def architecture(self) -> PretrainedConfig:
        """The model's config from transformers, read from config.json: no weights are needed, and none are loaded."""
        from transformers import AutoConfig

        path, revision = self.location()
        try:
            return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=self.trust_remote_code)
        except Exception as error:
            raise UserError(
                f"{path}: its config.json cannot be used: {first_line(error)}\nCheck the name and the network; a "
                "gated model needs its terms accepted on the Hub and a token (`hf auth login`, or HF_TOKEN); a folder "
                "with its config.json is enough."
            ) from error

    @property
    def max_positions(self) -> int | None:
        """The longest sequence in tokens, where it is known before loading."""
        return None

    @property
    def quantized_bits(self) -> int | None:
        """The bits that the checkpoint's weights have by bitsandbytes (4 or 8), where it is known before loading; None
        for other weights."""
        return None

    def check(self, auto_class: type) -> None:
        """Open tokenizer and config, and check that the architecture fits the task and the attention kernel.

        Raises:
            UserError: before any weight is read.
        """
        from sweep.models.compatibility import check_architecture

        self.load_tokenizer()
        check_architecture(
            self.location()[0], self.architecture(), auto_class, self.attention, own_code=self.trust_remote_code
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with padding on the right. Where it has no padding token, it pads with the end token. That is
        safe, since attention and labels are masked by length, never by token."""
        from transformers import AutoTokenizer

        path, revision = self.location()
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=self.trust_remote_code)
        except Exception as error:
            raise UserError(
                f"the tokenizer of {path} cannot be loaded: {first_line(error)}\n"
                "A checkpoint's folder needs tokenizer.json, or the vocabulary files of its model; save_pretrained of "
                "the tokenizer writes them."
            ) from error
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:
            substitute = tokenizer.eos_token or tokenizer.unk_token
            if substitute is None:
                raise UserError(f"the tokenizer of {path} has no padding, end or unknown token; it needs one of them")
            tokenizer.pad_token = substitute
        return tokenizer

    def load(
        self, auto_class: type, quantization: Any | None, device: str, arguments: Mapping[str, Any] | None = None
    ) -> PreTrainedModel:
        """The base model with its weights on `device`, quantised during loading where `quantization` is a config of
        transformers. `arguments` are the task's, such as the number and names of labels.

        Raises:
            UserError: where the checkpoint is damaged, or of another architecture than its config states.
        """
        from safetensors import SafetensorError

        from sweep.models.compatibility import check_loaded, renew_head
        from sweep.runtime.precision import dtype_of

        path, revision = self.location()
        try:
            model, found = auto_class.from_pretrained(
                path,
                revision=revision,
                dtype="auto" if self.dtype == "auto" else dtype_of(self.dtype),
                attn_implementation=self.attention,
                trust_remote_code=self.trust_remote_code,
                use_safetensors=True,
                device_map={"": device},
                quantization_config=quantization,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # of a head for other labels; check_loaded refuses the rest
                **(arguments or {}),
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"model {path} cannot be loaded: {first_line(error)}") from error
        model.randomly_initialised = check_loaded(path, model, found)
        if "id2label" in (arguments or {}):
            renew_head(model, self.architecture(), found)
        model.config.use_cache = False
        return model
