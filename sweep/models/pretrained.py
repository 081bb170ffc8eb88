"""A checkpoint from the Hugging Face Hub, or from a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.core.errors import UserError, first_line
from sweep.core.reporter import Reporter
from sweep.models import Model
from sweep.models.checkpoint_files import READ, SINGLE, config_faults, digest, folder_faults, read_config, weight_files
from sweep.tasks.batching import positions_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TIMEOUT_SECONDS = 10  # of a request to the Hub


@dataclass(frozen=True, kw_only=True)
class Pretrained(Model):
    """A checkpoint of the Hub or of a folder."""

    path: str
    """Hub id, for example "meta-llama/Meta-Llama-3-8B", or a folder."""
    revision: str | None = None
    """Commit, branch or tag on the Hub."""

    def faults(self) -> Iterator[tuple[str, str]]:
        folder = Path(self.path).expanduser()
        if not self.path.strip():
            yield "path", "is empty; give a Hub id (owner/name), or the folder of a checkpoint"
        elif folder.is_dir():
            for message in config_faults(folder):
                yield "path", message
        elif folder.exists():
            yield "path", "is a file; give the folder that it is in, or a Hub id (owner/name)"
        elif self.path.startswith((".", "/", "~")) or self.path.count("/") > 1:
            yield "path", "is neither an existing folder nor a Hub id (owner/name)"

    def location(self) -> tuple[str, str | None]:
        folder = Path(self.path).expanduser()
        return (str(folder.absolute()), None) if folder.is_dir() else (self.path, self.revision)

    @property
    def max_positions(self) -> int | None:
        return positions_in(self._config())

    @property
    def quantized_bits(self) -> int | None:
        found = self._config().get("quantization_config") or {}
        return 4 if found.get("load_in_4bit") else 8 if found.get("load_in_8bit") else None

    def _config(self) -> Mapping[str, Any]:
        """The content of config.json, in a folder or in the Hub's cache; empty where it is not on this machine."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return read_config(folder)[0]
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            file = try_to_load_from_cache(self.path, "config.json", revision=self.revision)
        except HFValidationError:  # `faults` states it
            return {}
        return read_config(Path(file).parent)[0] if isinstance(file, str) else {}

    def architecture(self) -> PretrainedConfig:
        """Checks first, with one request, that the Hub answers: transformers repeats a failed request six times, over
        half a minute."""
        path, revision = self.location()
        if not os.path.isdir(path):
            _require_answer(path, revision)
        return super().architecture()

    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """Download missing files. Returns the commit (Hub), or a digest of all files that are read (folder).
        Weights are loaded as safetensors only: loading a pickle can run any code."""
        path, revision = self.location()
        if os.path.isdir(path):
            self._require_whole(Path(path))
            return {"model_revision": f"sha256:{digest(Path(path))}"}
        try:
            folder = self._download(path, revision)
        except Exception as error:  # the network libraries change their errors between versions
            raise UserError(f"model.path = {self.path} could not be loaded: {_why(error)}") from error
        self._require_whole(folder)
        return {"model_revision": folder.name}

    def _download(self, path: str, revision: str | None) -> Path:
        """Load what the cache lacks: first the small files, then the weights that transformers loads. A repository may
        have the same weights in several formats."""
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(path, revision=revision, allow_patterns=list(READ)))
        snapshot_download(path, revision=folder.name, allow_patterns=[SINGLE])
        if not (folder / SINGLE).is_file():
            snapshot_download(path, revision=folder.name, allow_patterns=weight_files(folder))
        return folder

    def _require_whole(self, folder: Path) -> None:
        """Check tokenizer and weights, which a run needs and a plan does not."""
        faults = [f"model.path = {self.path} {fault}" for fault in folder_faults(folder)]
        if faults:
            raise UserError("\n".join(faults))

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """With the commit as revision: a branch may move during a study, and all runs must load the same commit."""
        commit = facts["model_revision"]
        return config if commit.startswith("sha256:") else {**config, "revision": commit}


def _require_answer(path: str, revision: str | None) -> None:
    """Raises UserError where config.json is not in the Hub's cache and cannot be loaded from the Hub."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(path, "config.json", revision=revision), str):
        return
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"model.path = {path} is not in the Hub's cache, and HF_HUB_OFFLINE=1 forbids a download: unset it, or "
            "give the folder of a checkpoint (for a plan, its config.json is enough)"
        )
    try:
        get_hf_file_metadata(hf_hub_url(path, "config.json", revision=revision), timeout=_TIMEOUT_SECONDS)
    except Exception as error:  # as in prepare
        raise UserError(f"model.path = {path} could not be loaded: {_why(error)}") from error


def _why(error: Exception) -> str:
    """The Hub's reason, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError
        return (
            "it is gated. Accept its terms on its page of the Hub, and give a token that may read it (`hf auth login`, "
            "or HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub has no such model, or it is private: check the name, or give a token (`hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision; see its page on the Hub for branches, tags and commits"
    return (
        f"{type(error).__name__}: {first_line(error)}\n"
        "Check the name and the network; offline, give the folder of a downloaded checkpoint, or a model that is in "
        "the Hub's cache already."
    )
