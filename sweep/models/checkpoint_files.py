"""The files of a checkpoint's folder: which are read, and their faults. Standard library only."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model",
               "spiece.model", "sentencepiece.bpe.model", "source.spm")  # fmt: skip
# What a run reads of a checkpoint, in addition to the weights. Subfolders have chat templates and code.
READ = ("*.json", "*.model", "*.txt", "*.spm", "*.bpe", "*.tiktoken", "*.jinja", "*/*.jinja", "*.py", "*/*.py")
SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100 * 2**20  # bytes; safetensors' own


def folder_faults(folder: Path) -> Iterator[str]:
    """The faults of config, tokenizer and weights, in this order."""
    yield from config_faults(folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield "has no tokenizer (tokenizer.json, vocab.txt, …); tokenizer.save_pretrained writes one"
    yield from _weight_faults(folder)


def config_faults(folder: Path) -> Iterator[str]:
    """The faults of config.json: it must exist, and name the type of the model."""
    config, fault = read_config(folder)
    if fault:
        yield fault
    elif not isinstance(config.get("model_type"), str) and "auto_map" not in config:
        yield "has a config.json without a model_type, so that its kind is unknown; take that of the original model"


def read_config(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The content of config.json and None, or {} and its fault."""
    file = folder / "config.json"
    if not file.is_file():
        return {}, "is a folder without a config.json; save_pretrained writes one"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        return {}, f"has a config.json that cannot be read: {error}"
    if not isinstance(config, dict):
        return {}, f"has a config.json that is {type(config).__name__}, not an object"
    return config, None


def weight_files(folder: Path) -> list[str]:
    """The names of the weight files that transformers loads: model.safetensors, else those in the index. Repositories
    have further ones, in other formats.

    Raises:
        ValueError: for an index that cannot be read.
    """
    index = folder / _INDEX
    if (folder / SINGLE).is_file() or not index.is_file():
        return [SINGLE]
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"has a damaged {_INDEX}: {type(error).__name__}: {error}") from error


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files that a run reads: config, generation config, tokenizer, chat
    templates, code and weights, in order of name."""
    whole = hashlib.sha256()
    found = {file for pattern in READ for file in folder.glob(pattern)}
    for file in sorted(found | {folder / name for name in weight_files(folder)}):
        whole.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def _weight_faults(folder: Path) -> Iterator[str]:
    try:
        names = weight_files(folder)
    except ValueError as error:
        yield str(error)
        return
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and missing != [SINGLE]:
        yield f"lacks {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}, which {_INDEX} names"
    files = [folder / name for name in names if name not in missing]
    if missing == [SINGLE]:
        pickles = [file.name for file in folder.glob("*.bin")] + [file.name for file in folder.glob("*.pt")]
        if (folder / "adapter_config.json").is_file():
            yield "holds an adapter, not a base model; give the base that it was trained on"
        elif pickles:
            kind = next(iter(read_config(folder)[0].get("architectures") or ["AutoModelForCausalLM"]))
            yield (
                f"has its weights as pickle only ({pickles[0]}), which can run any code; convert them once, where "
                f"you trust them: transformers.{kind}.from_pretrained('{folder}').save_pretrained('{folder}')"
            )
        else:
            yield "has no weights: model.safetensors, or parts of it with their index"
    for file in files:
        fault = safetensors_fault(file)
        if fault:
            yield f"has a damaged {file.name}: {fault}; copy it again"


def safetensors_fault(file: Path) -> str | None:
    """The fault in the header or the length of a safetensors file, or None. An incomplete copy has such a fault."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        if len(first) < 8:
            return f"a safetensors file has more than {size} bytes"
        (length,) = struct.unpack("<Q", first)
        if length > min(size - 8, _HEADER_LIMIT):
            return "its header is longer than the file, or is missing"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            needed = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "its header cannot be read"
    if size != needed:
        return f"it has {size} bytes, and its header describes {needed}"
    return None
