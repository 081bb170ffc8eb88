"""Redaction of secrets: credentials in URIs, tokens of known services, and values of keys and environment variables
whose names look secret.

All text that leaves the program (logs, MLflow, artifacts, reports, standard output) passes `text` or `tree`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import OmegaConf

from sweep.core.secret_names import is_secret_name

MASK = "***"
_SHORTEST = 6  # characters; a shorter value occurs in too many other words
# Up to the last @ before the end of the word: a password may contain @ and /.
_URI_CREDENTIALS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.\-]{0,30}://)[^\s'\"<>]{1,1000}@(?=[\w.\-\[\]]{1,255}(?:[:/?#\s'\",)}]|$))"
)
_URI_PASSWORD = re.compile(r"://[^\s:/@]*:([^\s]+)@")
_QUERY = re.compile(
    r"(?P<key>[?&;][\w\-]{0,60}?(?:token|secret|password|passwd|pwd|key|sig|signature|credential|auth|code)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|xox[abeoprs]-[\w\-]{10,}"
    r"|xapp-[\w\-]{10,}|sk-(?=[\w\-]{0,200}\d)[\w\-]{16,}|[sr]k_(?:live|test)_\w{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w\-]{16,}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[\w\-]{30,}|ya29\.[\w\-]{16,}|SG\.[\w\-]{16,}\.[\w\-]{16,}|gsk_\w{20,}|nvapi-[\w\-]{20,}"
    r"|eyJ[\w\-]{8,}\.eyJ[\w\-]{8,}\.[\w\-]+)"
)
_WEBHOOKS = re.compile(r"(hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/)[^\s'\"<>]+")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_AUTHORIZATION = re.compile(
    r"(?P<head>\bauthorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:(?:bearer|basic|token|digest|apikey)\s+)?)[^\s\\'\",;}]+"
    r"|(?P<bearer>\bbearer\s+)(?=[\w.~+/=\-]{0,200}\d)[\w.~+/=\-]{8,}",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?<!\w)(?P<name>[A-Za-z_][\w\-]{0,80})(?P<quote>\\?[\"']?\]?)"
    r"(?P<sign>[ \t]*(?:=>|=(?!=)|:(?!//))[ \t]*)"
)
_OPTION = re.compile(r"(?<!\S)--?(?P<name>[A-Za-z][\w\-]{0,80})(?P<quote>)(?P<sign>[ \t]+)(?=[^\s\-])")
_VALUE = re.compile(
    r"[bfru]?(?P<open>\\?\"|\\?')(?P<inner>(?:\\.|(?!(?P=open)).)*)(?:(?P=open)|$)"
    r"|(?P<bare>[^\s'\"\\,&;)}\]]+)",
    re.MULTILINE,
)
_NEAR = 200  # characters before a name that are looked at
_UNSET = frozenset({"none", "null", "~", "true", "false", "", MASK})  # and a type in a signature is no value, either
_TYPES = frozenset({"str", "bytes", "int", "bool", "Any", "SecretStr"})
_LOOSE = frozenset({"token", "auth", "pat", "bearer"})  # words of prose, too: "special token: <pad>"


def text(value: str) -> str:
    """The text without URI credentials, tokens of known services, values of secret names, and values of environment
    variables with secret names."""
    value = _PEM.sub(MASK, value) if "PRIVATE KEY" in value else value
    if "://" in value:
        value = _URI_CREDENTIALS.sub(lambda match: f"{match['scheme']}{MASK}@", value)
    value = _QUERY.sub(lambda match: match["key"] + MASK, value)
    value = _TOKENS.sub(MASK, value)
    value = _WEBHOOKS.sub(lambda match: match[1] + MASK, value)
    value = _AUTHORIZATION.sub(lambda match: (match["head"] or match["bearer"]) + MASK, value)
    value = _mask_named(value, _NAMED)
    value = _mask_named(value, _OPTION)
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
    if is_secret_name(key.rpartition(".")[2]) and not isinstance(value, Mapping | bool) and value is not None:
        return MASK
    return tree(value)


def _mask_named(value: str, pattern: re.Pattern[str]) -> str:
    """Mask what follows a secret name: `name=x`, `name: x`, `"name": "x"`, `--name x`."""
    pieces, done = [], 0
    for named in pattern.finditer(value):
        if named.start() < done or not is_secret_name(named["name"]):
            continue
        found = _VALUE.match(value, named.end())
        if found is None or _is_prose(value, named):
            continue
        part = "bare" if found["open"] is None else "inner"
        start, end = found.span(part)
        if _starts_line(value, named) and part == "bare" and ":" in named["sign"]:
            end = _end_of_line(value, end)
        if value[start:end].strip().lower() in _UNSET or value[start:end] in _TYPES:
            continue
        pieces += [value[done:start], MASK]
        done = end
    return "".join([*pieces, value[done:]]) if pieces else value


def _is_prose(value: str, named: re.Match[str]) -> bool:
    """Whether a colon follows a word of a sentence, as in "special token: <pad>"."""
    if ":" not in named["sign"] or named["name"].lower() not in _LOOSE or named["quote"]:
        return False
    return value[max(0, named.start() - _NEAR) : named.start()].rstrip(" \t")[-1:] not in ("", "\n", "{", ",", "(", "-")


def _starts_line(value: str, named: re.Match[str]) -> bool:
    """Whether the name is a key of YAML: a value without quotes then goes to the end of the line."""
    before = value[max(0, named.start() - _NEAR) : named.start()]
    return not before[before.rfind("\n") + 1 :].strip(" \t-") and (len(before) < _NEAR or "\n" in before)


def _end_of_line(value: str, start: int) -> int:
    end = value.find("\n", start)
    return len(value) if end < 0 else end


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


@lru_cache(maxsize=8)
def _environment_secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The values of variables with secret names, passwords in URLs of any variable, and both as they stand in a URL;
    the longest first. A path, as of a socket, is not secret."""
    found = {secret for name, value in environment for secret in _secrets_of(name, value) if len(secret) >= _SHORTEST}
    return tuple(sorted(found | {quote(secret, safe="") for secret in found}, key=len, reverse=True))


def _secrets_of(name: str, value: str) -> Iterator[str]:
    if is_secret_name(name) and not (len(value) < 4096 and os.path.exists(value)):
        yield from (value, *(line for line in value.splitlines() if len(line) >= 16))
    yield from _URI_PASSWORD.findall(value)


class Formatter(logging.Formatter):
    """Redacts the whole line, with its arguments and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return text(super().format(record))
