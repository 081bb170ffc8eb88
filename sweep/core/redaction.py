"""Redaction of secrets: credentials in URIs, and values of keys and environment variables whose names look secret.

All text that leaves the program (logs, MLflow, artifacts, reports) passes `text` or `tree`.
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
# Whole words at the end of a name. `tokens` is a number (`max_new_tokens`), unless their owner stands before it.
_WORDS = r"(?:secret|password|passphrase|credential|api_?key|access_?key|private_?key)s?|token|passwd|pwd|auth"
_SECRET_NAME = re.compile(
    rf"(?:^|[_\-.])(?:{_WORDS}|(?:hub|api|auth|access)_?tokens)$|(?:token|secret|password|passwd|apikey)$",
    re.IGNORECASE,
)
_NOT_SECRET = frozenset({"PWD", "OLDPWD"})  # folders, in every shell
# Up to the last @ before the end of the word: a password may contain @ and /.
_URI_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][\w+.\-]*://)[^\s'\"<>]+@(?=[\w.\-\[\]]+(?:[:/?#\s'\",)]|$))")
_QUERY_SECRET = re.compile(r"(?P<key>[?&;][\w\-]*(?:token|secret|password|passwd|key|sig)=)[^&\s'\"]+", re.IGNORECASE)
_ASSIGNED = re.compile(r"(?P<name>[\w.\-/+]+)(?P<sign>\s*=\s*)(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\",&]+)")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
_SHORTEST = 8  # a shorter value occurs in too many other words


def is_secret_name(name: str) -> bool:
    """Whether the name of a key or variable looks like the name of a secret."""
    return name not in _NOT_SECRET and bool(_SECRET_NAME.search(name))


def text(value: str) -> str:
    """The text without URI credentials, Hub tokens, and values of environment variables with secret names."""
    value = _URI_CREDENTIALS.sub(lambda match: f"{match['scheme']}{MASK}@", value)
    value = _QUERY_SECRET.sub(lambda match: match["key"] + MASK, value)
    value = _HUB_TOKEN.sub(MASK, value)
    value = _ASSIGNED.sub(_mask_assigned, value)
    # Name by name: a thread of a library may remove a variable meanwhile.
    environment = {name: os.environ.get(name, "") for name in list(os.environ)}
    for secret in _environment_secrets(tuple(sorted(environment.items()))):
        value = value.replace(secret, MASK)
    return value


def tree(value: Any) -> Any:
    """A nested container with the values of secret keys masked, and every text redacted. Keys do not change."""
    if isinstance(value, Mapping):
        return {key: _below(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree(item) for item in value]
    return text(value) if isinstance(value, str) else value


def _below(key: str, value: Any) -> Any:
    """The value of a secret key is masked, except a group of keys and a value that is not set."""
    if is_secret_name(key) and value is not None and not isinstance(value, Mapping):
        return MASK
    return tree(value)


def _mask_assigned(match: re.Match[str]) -> str:
    last = re.split(r"[./]", match["name"])[-1]
    return f"{match['name']}{match['sign']}{MASK}" if is_secret_name(last) else match[0]


def yaml(content: Any) -> str:
    """A redacted container as YAML, with its interpolations."""
    return OmegaConf.to_yaml(OmegaConf.create(tree(content)))


def file(path: Path) -> None:
    """Redact a text file in place. A file without secrets is not written."""
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
        if is_secret_name(name)
        and len(value) >= _SHORTEST
        and not os.path.exists(value)  # a path, as of a socket, is not secret
    }
    return tuple(sorted(secrets, key=len, reverse=True))


class Formatter(logging.Formatter):
    """Redacts the whole line, with its arguments and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return text(super().format(record))
