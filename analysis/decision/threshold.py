"""The threshold: what a score has to reach, given the best."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """A share of the best score (`threshold`), or where `margin` is given, an absolute distance from it."""

    threshold: float = 0.99
    margin: float | None = None
    higher_is_better: bool = True

    def bar(self, best: float) -> float:
        """The score to reach."""
        if self.margin is not None:
            return best - self.margin if self.higher_is_better else best + self.margin
        return best * self.threshold if self.higher_is_better else best / self.threshold

    @property
    def weight(self) -> float:
        """How much of a rival's score a setting has to have (scores negated where lower is better)."""
        if self.margin is not None:
            return 1.0
        return self.threshold if self.higher_is_better else 1 / self.threshold

    @property
    def offset(self) -> float:
        return self.margin or 0.0

    def words(self, metric: str) -> str:
        """What has to be reached, in words."""
        if self.margin is not None:
            return f"within {self.margin:g} of the best {metric}"
        if self.higher_is_better:
            return f"{self.threshold:.4g} × the best {metric}"
        return f"the best {metric} / {self.threshold:.4g}"
