"""What a run says while it goes on: loss and scores by step, and how far it is."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """The way out of a run's process. A run knows no tracking server."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Values at an optimizer step."""

    def progress(self, label: str, done: int, total: int) -> None:
        """How far the present phase is."""


class _Silent:
    def metrics(self, step: int, values: dict[str, float]) -> None:
        return

    def progress(self, label: str, done: int, total: int) -> None:
        return


silent: Report = _Silent()
