"""Faults of the user's own making: told in words, without a traceback."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_LINE = 116  # characters
_FEW = 8  # alternatives that are worth naming beside a near one


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, its value, the rule and the fix."""

    exit_code = 1


class Fault(NamedTuple):
    """One thing wrong with a config: `key`, the value found as text ("" where there is none), and what to do."""

    key: str
    value: str
    message: str

    @property
    def subject(self) -> str:
        return f"{self.key} = {self.value}" if self.value else self.key


class ConfigError(UserError):
    """All the faults of a config, together."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(dict.fromkeys(faults))
        super().__init__(self._text())

    def _text(self) -> str:
        count = len(self.faults)
        head = f"{count} fault{'s' if count != 1 else ''} in the config:"
        width = min(48, max((len(fault.subject) for fault in self.faults), default=0))
        lines = []
        for fault in self.faults:
            first, *rest = textwrap.wrap(fault.message, max(40, _LINE - width)) or [""]
            lines.append(f"  {fault.subject:<{width}}  {first}".rstrip())
            lines.extend(f"  {'':<{width}}  {line}" for line in rest)
        return "\n".join([head, *lines])


def alternatives(wrong: str, known: Sequence[str]) -> str:
    """ "did you mean …?" where something is near, and what there is otherwise."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    listed = f"there is: {', '.join(known) or 'nothing'}"
    if not near:
        return listed
    return f"did you mean {near[0]}?" + (f" ({listed})" if len(known) <= _FEW else "")


def first_line(text: object) -> str:
    """The first line that says anything, for places that have room for one."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")
