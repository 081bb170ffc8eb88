"""Training throughput in non-padding tokens per second."""

from __future__ import annotations

import time


class Throughput:
    """Times optimizer steps.

    Tokens are counted by the attention mask, so that more padding does not look faster. These are not timed: the first
    `skipped_steps` steps (kernel selection, allocator growth); steps that something slowed down (`counts=False`: on the
    CPU, those that the memory meter measures); evaluation, checkpoints and data preparation. The caller synchronises
    the device before `step_begins` and `step_ended`.
    """

    def __init__(self, skipped_steps: int) -> None:
        self.skipped_steps = skipped_steps
        self.steps = 0
        self.timed_steps = 0
        self.timed_tokens = 0
        self.timed_seconds = 0.0
        self._tokens = 0
        self._counts = True
        self._started = 0.0

    def step_begins(self, counts: bool = True) -> None:
        self._counts = counts
        self._tokens = 0
        self._started = time.perf_counter()

    def add_tokens(self, tokens: int) -> None:
        self._tokens += tokens

    def step_ended(self) -> float:
        """The seconds that the step took."""
        seconds = time.perf_counter() - self._started
        self.steps += 1
        if self._counts and self.steps > self.skipped_steps:
            self.timed_steps += 1
            self.timed_tokens += self._tokens
            self.timed_seconds += seconds
        return seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None where fewer than two steps were timed."""
        return self.timed_tokens / self.timed_seconds if self.timed_steps >= 2 else None
