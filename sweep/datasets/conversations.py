"""Conversations in the forms that files have, as lists of {role, content}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sweep.core.errors import UserError

# ShareGPT's names of speakers.
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}


def messages(value: Any) -> Any:
    """The messages of a conversation: also from ShareGPT's form ({from, value}), from contents in parts of text, and
    from JSON text. What has none of these forms is returned as it is.

    Raises:
        UserError: for a part of a content that is not text.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return [_message(item) for item in value] if isinstance(value, list | tuple) else value


def _message(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    if "role" not in item and {"from", "value"} <= item.keys():
        speaker = item["from"]
        item = {"role": _SPEAKERS.get(speaker, speaker), "content": item["value"]}
    parts = item.get("content")
    return {**item, "content": "".join(map(_part, parts))} if isinstance(parts, list | tuple) else dict(item)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        kind = part.get("type", "object") if isinstance(part, Mapping) else type(part).__name__
        raise UserError(f"a message has a part of type {kind!r}, and only parts of text can be read")
    return text
