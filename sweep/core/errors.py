"""Errors that a user can fix: printed as a message, without a traceback."""

from __future__ import annotations

import difflib
import errno
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

_LINE = 116  # characters
_FEW = 8  # so many alternatives are listed after a similar one


class UserError(Exception):
    """An error that the user can fix. The message has the key, its value, the rule and the fix."""

    exit_code = 1


class Fault(NamedTuple):
    """One fault of a config: its key, the value as text ("" without a value), and a message with the fix."""

    key: str
    value: str
    message: str

    @property
    def subject(self) -> str:
        return f"{self.key} = {self.value}" if self.value else self.key


class ConfigError(UserError):
    """All faults of a config together."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(dict.fromkeys(faults))
        count = len(self.faults)
        head = f"{count} fault{'s' if count != 1 else ''} in the config:"
        width = min(48, max((len(fault.subject) for fault in self.faults), default=0))
        lines = []
        for fault in self.faults:
            first, *rest = textwrap.wrap(fault.message, max(40, _LINE - width)) or [""]
            lines.append(f"  {fault.subject:<{width}}  {first}".rstrip())
            lines.extend(f"  {'':<{width}}  {line}" for line in rest)
        super().__init__("\n".join([head, *lines]))


def alternatives(wrong: str, known: Sequence[str]) -> str:
    """ "did you mean …?" if a known name is similar to the wrong one, else the list of known names."""
    similar = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    listed = f"there is: {', '.join(known) or 'nothing'}"
    if not similar:
        return listed
    return f"did you mean {similar[0]}?" + (f" ({listed})" if len(known) <= _FEW else "")


def described(error: BaseException) -> str:
    """The class of an exception and its message. The text of an exception from outside may fail, too."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  whatever its author's code raises
        text = "it has no text"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn the error of a full disk into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f" for {error.filename}" if error.filename else ""
        raise UserError(f"no space is left on the disk{place}; free some, and give the same command again") from error


def first_line(text: object) -> str:
    """The first line that is not empty, and that is no advice of SQLAlchemy to programmers."""
    lines = (line.strip() for line in str(text).splitlines())
    return next((line for line in lines if line and not line.startswith("(raised as a result of")), "")
