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
# Whole words at the end of a name. `tokens` counts something (`max_new_tokens`), unless it says whose they are.
_WORDS = r"(?:secret|password|passphrase|credential|api_?key|access_?key|private_?key)s?|token|passwd|pwd|auth"
_SECRET_NAME = re.compile(
    rf"(?:^|[_\-.])(?:{_WORDS}|(?:hub|api|auth|access)_?tokens)$|(?:token|secret|password|passwd|apikey)$",
    re.IGNORECASE,
)
_NOT_SECRET = frozenset({"PWD", "OLDPWD"})  # folders, in every shell
# Up to the last @ before the end of the word: a password may hold @ and /, though it should not.
_URI_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][\w+.\-]*://)[^\s'\"<>]+@(?=[\w.\-\[\]]+(?:[:/?#\s'\",)]|$))")
_QUERY_SECRET = re.compile(r"(?P<key>[?&;][\w\-]*(?:token|secret|password|passwd|key|sig)=)[^&\s'\"]+", re.IGNORECASE)
_ASSIGNED = re.compile(r"(?P<name>[\w.\-/+]+)(?P<sign>\s*=\s*)(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\",&]+)")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
_SHORTEST = 8  # a shorter value stands in too many innocent places


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a secret by the look of it."""
    return name not in _NOT_SECRET and bool(_SECRET_NAME.search(name))


def text(value: str) -> str:
    """The text without URI credentials, Hub tokens, and values of secret-looking environment variables."""
    value = _URI_CREDENTIALS.sub(lambda match: f"{match['scheme']}{MASK}@", value)
    value = _QUERY_SECRET.sub(lambda match: match["key"] + MASK, value)
    value = _HUB_TOKEN.sub(MASK, value)
    value = _ASSIGNED.sub(_mask_assigned, value)
    for secret in _environment_secrets(tuple(sorted(os.environ.items()))):
        value = value.replace(secret, MASK)
    return value


def tree(value: Any) -> Any:
    """A nested container with secret keys masked and every text redacted. Keys stay as they are."""
    if isinstance(value, Mapping):
        return {key: _below(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree(item) for item in value]
    return text(value) if isinstance(value, str) else value


def _below(key: str, value: Any) -> Any:
    """Under a secret's name everything is masked, but for groups of further keys and what is not set."""
    if is_secret_name(key) and value is not None and not isinstance(value, Mapping):
        return MASK
    return tree(value)


def _mask_assigned(match: re.Match[str]) -> str:
    last = re.split(r"[./]", match["name"])[-1]
    return f"{match['name']}{match['sign']}{MASK}" if is_secret_name(last) else match[0]


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
    secrets = {
        value
        for name, value in environment
        if is_secret_name(name) and len(value) >= _SHORTEST and not os.path.exists(value)  # a socket is no secret
    }
    return tuple(sorted(secrets, key=len, reverse=True))


class Formatter(logging.Formatter):
    """Redacts the finished line, arguments and traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return text(super().format(record))
