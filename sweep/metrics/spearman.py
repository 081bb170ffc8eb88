"""Spearman's correlation of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics.pearson import Pearson


@dataclass(frozen=True, kw_only=True)
class Spearman(Pearson):
    """Pearson's correlation of ranks: whether the order is right. Equal numbers share the mean of their ranks.

    The per-example columns are ranks in the whole set. Where examples are drawn anew, as for an interval, these stay,
    which differs from ranking each draw by terms that vanish with the number of examples.
    """

    def values(self, texts: Sequence[str]) -> list[float]:
        from scipy.stats import rankdata

        ranks = rankdata([float(text) for text in texts])
        return (ranks - (len(ranks) + 1) / 2).tolist()
