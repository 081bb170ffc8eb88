"""The reports of a run while it runs: metrics by step, progress, and one question."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives a run's reports. A run does not contact a tracking server itself."""

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Values at an optimizer step."""

    def progress(self, label: str, done: int, total: int) -> None:
        """The progress of the current phase."""

    def should_prune(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        """Whether the run should stop at this step.

        Args:
            step: number of the optimizer step.
            score: validation score at the step.
            error: its standard error.
            memory_bytes: peak of training so far, None if it was not measured.

        Returns:
            The reason to stop, or None.
        """


class _Silent:
    def metrics(self, step: int, values: dict[str, float]) -> None:
        return

    def progress(self, label: str, done: int, total: int) -> None:
        return

    def should_prune(self, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        return None


silent: Reporter = _Silent()
