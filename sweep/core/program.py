"""How the user called this program: messages name its commands in the same form."""

from __future__ import annotations

import sys

MODULES = {
    "sweep": "sweep",
    "plan": "sweep.plan",
    "export": "sweep.export",
    "evaluate": "sweep.evaluate",
    "analyze": "analysis",
    "ui": "analysis.ui",
}
_WORDS = [""]  # the words before the arguments, if the program is the script `paretune`


def called_as(words: str) -> None:
    """State that the user typed these words before the arguments, such as "paretune sweep"."""
    _WORDS[0] = words


def words() -> str | None:
    """The words before the arguments, as the user typed them; None where another program called."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if _WORDS[0]:
        return _WORDS[0]
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec is not None else None


def command(name: str) -> str:
    """The words of a command, such as "analyze", in the form that the user types."""
    return f"paretune {name}" if _WORDS[0] else f"python -m {MODULES[name]}"
