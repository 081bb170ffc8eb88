"""Early stopping: training ends when the validation score has stopped to become better."""

from __future__ import annotations


class EarlyStopping:
    """Counts evaluations since the best score. The rule is the same for all variants, and knows one run only.

    The run keeps its last weights: to restore the best ones would select by the validation set that also decides.
    """

    def __init__(self, patience: int, higher_is_better: bool):
        self._patience = patience
        self._sign = 1.0 if higher_is_better else -1.0
        self._best: float | None = None
        self._without = 0

    def is_over(self, score: float) -> bool:
        """Whether `patience` evaluations in a row, this one included, have not exceeded the best score before them."""
        if self._best is None or self._sign * score > self._sign * self._best:
            self._best, self._without = score, 0
        else:
            self._without += 1
        return self._without >= self._patience
