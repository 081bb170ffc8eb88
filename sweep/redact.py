"""No secret is stored or printed: credentials in URIs, and values of secret-looking keys and environment variables.

Everything that leaves the program as text (logs, MLflow, artifacts, reports) goes through `text` or `tree`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

MASK = "***"
# Whole words of a name, so that `max_new_tokens` and `token_accuracy` stay readable.
_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:token|secret|password|passwd|pwd|passphrase|credentials?|api_?key|access_?key|private_?key|auth)(?:$|[_\-.])"
    r"|(?:token|secret|password|passwd|apikey)$",
    re.IGNORECASE,
)
_URI_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][\w+.\-]*://)(?P<credentials>[^/\s@'\"]+)@")
_QUERY_SECRET = re.compile(
    r"(?P<key>[?&;](?:[\w\-]*(?:token|secret|password|passwd|key|sig))=)[^&\s'\"]+", re.IGNORECASE
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}\b")
_SHORTEST = 8  # a shorter value stands in too many innocent places


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret by the look of it."""
    return bool(_SECRET_NAME.search(name))


def text(value: str) -> str:
    """The text without URI credentials, Hub tokens, and values of secret-looking environment variables."""
    value = _URI_CREDENTIALS.sub(lambda match: f"{match['scheme']}{MASK}@", value)
    value = _QUERY_SECRET.sub(lambda match: match["key"] + MASK, value)
    value = _HUB_TOKEN.sub(MASK, value)
    for secret in _environment_secrets(tuple(sorted(os.environ.items()))):
        value = value.replace(secret, MASK)
    return value


def tree(value: Any) -> Any:
    """A nested container with secret keys masked and every text redacted. Keys stay as they are."""
    if isinstance(value, Mapping):
        return {k: MASK if v and isinstance(v, str) and is_secret_name(str(k)) else tree(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [tree(item) for item in value]
    return text(value) if isinstance(value, str) else value


def yaml(content: Any) -> str:
    """A redacted container as YAML, interpolations as they are written."""
    return OmegaConf.to_yaml(OmegaConf.create(tree(content)))


def file(path: Path) -> None:
    """Redact a text file in place, where it holds anything to redact."""
    if path.exists():
        content = path.read_text(errors="replace")
        clean = text(content)
        if clean != content:
            path.write_text(clean)


@cache
def _environment_secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    secrets = {value for name, value in environment if is_secret_name(name) and len(value) >= _SHORTEST}
    return tuple(sorted(secrets, key=len, reverse=True))


class Formatter(logging.Formatter):
    """Redacts the finished line, arguments and traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return text(super().format(record))
