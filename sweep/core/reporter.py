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
        """The reason to stop at this optimizer step, or None.

        Args:
            step: Number of the optimizer step.
            score: Validation score at the step.
            error: Its standard error.
            memory_bytes: Peak of training so far, None if it was not measured.
        """


class _Silent(Reporter):
    """Does nothing: the methods of the protocol have no body."""


silent: Reporter = _Silent()
