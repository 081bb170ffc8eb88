"""What a run says while it goes on, loss and scores by step and how far it is, and the one thing that it asks."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """The way out of a run's process. A run knows no tracking server."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Values at an optimizer step."""

    def progress(self, label: str, done: int, total: int) -> None:
        """How far the present phase is."""

    def should_prune(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        """Tell the validation score at a step, its standard error, and the peak of training so far. Returns why the run
        should stop here, if it should."""


class _Silent:
    def metrics(self, step: int, values: dict[str, float]) -> None:
        return

    def progress(self, label: str, done: int, total: int) -> None:
        return

    def should_prune(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        return None


silent: Reporter = _Silent()
