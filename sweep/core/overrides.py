"""Overrides as a person can paste them into a shell: text crosses the shell's grammar and Hydra's."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_UNQUOTED = re.compile(r"[A-Za-z0-9_./+@%?*|:-]+")  # what Hydra reads as text without quotes
_OTHER_TYPE = re.compile(r"null|true|false|[+-]?(inf|nan|[0-9_.]+(e[+-]?[0-9]+)?)", re.IGNORECASE)
_WHOLE = re.compile(r"0|-?[1-9]\d*")  # read as a number and written back as the same text


def shell_override(key: str, value: Any) -> str:
    """`key=value` for a shell: `study=mine`, `'study="my study"'`, `'seed=range(0,9)'`."""
    return shlex.quote(f"{key}={hydra_value(value)}")


def shell_sweep(key: str, text: str) -> str:
    """The same for a value that is Hydra's sweep syntax already."""
    return shlex.quote(f"{key}={text}")


def yaml_value(value: Any) -> str:
    """A value of `hydra.sweeper.params`: a text there is Hydra's grammar already."""
    return value if isinstance(value, str) else hydra_value(value)


def hydra_value(value: Any) -> str:
    """A value in Hydra's grammar, which reads back as the same value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(one)}" for key, one in value.items()) + "}"
    return text_value(str(value))


def text_value(text: str) -> str:
    """A text in Hydra's grammar, with quotes where Hydra would read it as something else."""
    if _WHOLE.fullmatch(text) or (_UNQUOTED.fullmatch(text) and not _OTHER_TYPE.fullmatch(text)):
        return text
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ("\\" if found[2] else "") + found[2], text)
    return '"' + escaped.replace("${", "\\${") + '"'


def count_of_range(sweep: Any) -> int:
    """The number of values of Hydra's `range(start, stop, step)`, which are not listed: there may be 10^9."""
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    return max(0, math.ceil((stop - start) / step)) if step else 0
