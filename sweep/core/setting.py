"""A setting is what a study recommends: a variant and the value of every swept key, except the seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sweep.core import own_code

SEED = "seed"
VARIANT = "variant"


def varied_keys(overrides: Iterable[str]) -> list[str]:
    """The keys of overrides "key=value" that belong to a setting: the keys of the variant. The choice of the variant is
    not among them, since the setting's name has it."""
    keys = (override.partition("=")[0].lstrip("+") for override in overrides)
    return [key for key in dict.fromkeys(keys) if key.startswith(f"{VARIANT}.")]


def setting_name(config: Mapping[str, Any], swept: Iterable[str]) -> str:
    """ "lora_r8", or "lora_r8 r=4 max_steps=100" if more than the variant is swept.

    A key is shortened to its last part if that is not ambiguous.
    """
    keys = [key for key in swept if key not in (VARIANT, SEED)]
    last = [key.rpartition(".")[2] for key in keys]
    short = [part if last.count(part) == 1 else key for key, part in zip(keys, last, strict=True)]
    values = [f"{name}={_shown(select(config, key))}" for name, key in zip(short, keys, strict=True)]
    return " ".join([str(config["variant"]["name"]), *values])


def _shown(value: Any) -> str:
    """A value in a name. A sampled number has seventeen digits, and a name needs five."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def setting_digest(config: Mapping[str, Any], swept: Iterable[str]) -> str:
    """Digest of everything that the setting's name means: it changes if the file of the variant changes, or the
    source of a class of the user's own."""
    code = own_code.digests(config["variant"])
    values = {key: select(config, key) for key in sorted(swept) if key != SEED}
    content = {"variant": config["variant"], **values, **code}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def select(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None if the key is missing."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node
