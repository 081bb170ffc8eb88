"""A checkpoint from the Hugging Face Hub, or from a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import UserError
from sweep.models import Model
from sweep.report import Report


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

    def prepare(self, report: Report) -> Mapping[str, str]:
        """Download what is missing, and tell the commit (Hub) or a digest of config and weights (folder)."""
        from transformers import AutoConfig

        path, revision = self.location()
        try:
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.path = {self.path} cannot be loaded: {str(error).splitlines()[0]}\n"
                "Check the name and the network; a gated model needs its terms accepted on the Hub and a token "
                "(`hf auth login`, or HF_TOKEN); offline, give the folder of a downloaded checkpoint."
            ) from error
        if os.path.isdir(path):
            return {"model_revision": f"sha256:{folder_digest(Path(path))}"}
        return {"model_revision": getattr(config, "_commit_hash", None) or str(revision)}


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of config and weights, in order of name."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
