"""The embedded base model: a small Llama pretrained on SCAN without "around right", built once and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt

from sweep.core.preflight import output_fault
from sweep.core.reporter import Reporter
from sweep.models import Model
from sweep.models.checkpoint_files import digest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
PAD, START, END = "<pad>", "<s>", "</s>"
MANIFEST = "manifest.json"
POSITIONS = 128  # the longest pair of the data has 58 tokens


@dataclass(frozen=True, kw_only=True)
class ScanLlama(Model):
    """The embedded base. Its folder has a digest of these options in its name and a manifest of digests in it, so that
    other options build another model and a damaged file is noticed."""

    location_keys: ClassVar[tuple[str, ...]] = ("cache",)

    cache: str
    """Folder of the models that were built."""
    hidden_size: Annotated[int, Ge(64)]
    """Width of the hidden states."""
    intermediate_size: Annotated[int, Ge(64)]
    """Width of the feed-forward layers."""
    num_hidden_layers: Annotated[int, Ge(1)]
    """Number of blocks."""
    num_attention_heads: Annotated[int, Ge(1)]
    """Number of attention heads."""
    pretrain_steps: Annotated[int, Ge(1)]
    """Optimizer steps of the pretraining."""
    pretrain_batch_size: Annotated[int, Ge(1)]
    """Examples in one step of the pretraining."""
    pretrain_learning_rate: Annotated[float, Gt(0)]
    """Peak learning rate of the pretraining."""
    pretrain_seed: Annotated[int, Ge(0)] = 0
    """Seed of the pretraining."""

    def faults(self) -> Iterator[tuple[str, str]]:
        for fault in output_fault("cache", str(Path(self.cache).expanduser())):
            yield fault.key, fault.message
        if self.hidden_size % self.num_attention_heads:
            yield "hidden_size", f"is not divisible by num_attention_heads = {self.num_attention_heads}"
        elif self.hidden_size // self.num_attention_heads % 2:
            yield "num_attention_heads", "gives heads of odd width; rotary positions need an even one"

    @property
    def max_positions(self) -> int:
        return POSITIONS

    @property
    def folder(self) -> Path:
        outside = ("cache", "attention", "dtype", "learning_rates")
        recipe = {key: value for key, value in asdict(self).items() if key not in outside}
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
        return Path(self.cache).expanduser() / f"scan_llama-{digest}"

    def location(self) -> tuple[str, None]:
        return str(self.folder), None

    def architecture(self) -> PretrainedConfig:
        from transformers import LlamaConfig

        tokenizer = build_tokenizer()
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            use_cache=False,
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The saved tokenizer, or before the model is built an equal new one."""
        return super().load_tokenizer() if self.folder.is_dir() else build_tokenizer()

    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """Build the model where the cache lacks it or holds a damaged one. One process builds; others wait for it."""
        from filelock import FileLock

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            fault = _fault(self.folder)
            if fault:
                if self.folder.exists():
                    log.warning("the cached base model in %s is unusable (%s): building it again", self.folder, fault)
                    shutil.rmtree(self.folder)
                self._build(report)
        return {"model_revision": f"sha256:{digest(self.folder)}"}

    def _build(self, report: Reporter) -> None:
        """Build into a temporary folder first, so that an interrupted build leaves nothing that looks like a model."""
        scratch = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.building-", dir=self.folder.parent))
        try:
            self._pretrain(scratch, report)
            digests = {file.name: _sha256(file) for file in sorted(scratch.iterdir())}
            (scratch / MANIFEST).write_text(json.dumps(digests, indent=1))
            os.rename(scratch, self.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _pretrain(self, folder: Path, report: Reporter) -> None:
        import torch
        from transformers import LlamaForCausalLM, set_seed

        from sweep.datasets import scan
        from sweep.tasks.generation import encode_pairs, pad_batch
        from sweep.training.fit import fit
        from sweep.training.options import Train

        tokenizer = build_tokenizer()
        set_seed(self.pretrain_seed)
        model = LlamaForCausalLM(self.architecture()).to("cuda" if torch.cuda.is_available() else "cpu")
        examples = scan.base_examples()
        sizes = model.num_parameters(), len(examples), self.pretrain_steps
        log.info("pretraining the embedded base model once: %d parameters, %d examples, %d steps", *sizes)
        fit(
            model,
            encode_pairs(tokenizer, examples, POSITIONS),
            pad_batch(tokenizer),
            Train(
                max_steps=self.pretrain_steps,
                micro_batch_size=self.pretrain_batch_size,
                max_length=POSITIONS,
                warmup_ratio=0.1,
                optimizer="adamw_torch_fused",
                adam_beta2=0.98,
                precision="fp32",
            ),
            learning_rate=self.pretrain_learning_rate,
            seed=self.pretrain_seed,
            report=report,
            label="pretraining the base model",
        )
        model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def build_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer whose tokens are words, separated by white space. It puts a start token before each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from sweep.datasets import scan

    words = [PAD, START, END, scan.ARROW, *scan.vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=POSITIONS
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fault(folder: Path) -> str | None:
    """Why the cached model is unusable, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        damaged = [name for name, digest in manifest.items() if _sha256(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (ValueError, OSError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    if "model.safetensors" not in manifest:
        return f"{MANIFEST} lists no weights"
    return f"{', '.join(damaged)} changed since it was built" if damaged else None
