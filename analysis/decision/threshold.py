"""The score threshold, computed from the best score."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """A share of the best score (`threshold`), or where `margin` is given, an absolute distance from it."""

    threshold: float = 0.99
    margin: float | None = None
    higher_is_better: bool = True

    def score_threshold(self, best: float) -> float:
        """The score that a setting must reach."""
        if self.margin is not None:
            return best - self.margin if self.higher_is_better else best + self.margin
        return best * self.threshold if self.higher_is_better else best / self.threshold

    @property
    def weight(self) -> float:
        """The share of a rival's score that a setting must have. Scores are negated where lower is better."""
        if self.margin is not None:
            return 1.0
        return self.threshold if self.higher_is_better else 1 / self.threshold

    @property
    def offset(self) -> float:
        return self.margin or 0.0

    def words(self, metric: str) -> str:
        """The threshold as a phrase."""
        if self.margin is not None:
            return f"within {self.margin:g} of the best {metric}"
        if self.higher_is_better:
            return f"{self.threshold:.4g} × the best {metric}"
        return f"the best {metric} / {self.threshold:.4g}"

    @property
    def short_words(self) -> str:
        """The same without the metric."""
        if self.margin is not None:
            return f"within {self.margin:g} of the best"
        return (
            f"{100 * self.threshold:.4g}% of the best" if self.higher_is_better else f"the best / {self.threshold:.4g}"
        )
