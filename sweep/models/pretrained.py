"""A checkpoint from the Hugging Face Hub, or from a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import UserError, first_line
from sweep.models import Model
from sweep.report import Report

# Weights as safetensors only: what pickle would run is nobody's choice here.
_NEEDED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]


@dataclass(frozen=True, kw_only=True)
class Pretrained(Model):
    """`path` is a Hub id ("meta-llama/Meta-Llama-3-8B") or a folder; `revision` pins a Hub commit, branch or tag."""

    path: str
    revision: str | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        folder = Path(self.path).expanduser()
        if folder.is_dir() and not (folder / "config.json").is_file():
            yield "path", "is a folder without a config.json; save_pretrained writes one"
        elif not folder.exists() and (self.path.startswith((".", "/", "~")) or self.path.count("/") > 1):
            yield "path", "is no folder that exists, and not a Hub id (owner/name)"

    def location(self) -> tuple[str, str | None]:
        folder = Path(self.path).expanduser()
        return (str(folder), None) if folder.is_dir() else (self.path, self.revision)

    @property
    def max_positions(self) -> int | None:
        """From a folder's config.json; None for a model of the Hub, whose config is not here yet."""
        file = Path(self.path).expanduser() / "config.json"
        try:
            config = json.loads(file.read_text())
        except (OSError, ValueError):
            return None
        found = next((config[key] for key in ("max_position_embeddings", "n_positions") if key in config), None)
        return found if isinstance(found, int) else None

    def prepare(self, report: Report) -> Mapping[str, str]:
        """Download what is missing, and tell the commit (Hub) or a digest of config and weights (folder)."""
        path, revision = self.location()
        if os.path.isdir(path):
            return {"model_revision": f"sha256:{folder_digest(Path(path))}"}
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            folder = snapshot_download(path, revision=revision, allow_patterns=_NEEDED)
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise UserError(
                f"model.path = {self.path} cannot be had: {first_line(error)}\n"
                "Check the name and the network; a gated model needs its terms accepted on the Hub and a token "
                "(`hf auth login`, or HF_TOKEN); offline, give the folder of a downloaded checkpoint."
            ) from error
        return {"model_revision": Path(folder).name}

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """A branch may move while a study runs: its runs load the commit that was seen first."""
        commit = facts["model_revision"]
        return config if commit.startswith("sha256:") else {**config, "revision": commit}


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of config and weights, in order of name."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
