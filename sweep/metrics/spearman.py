"""Spearman's correlation of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.metrics.pearson import Pearson


@dataclass(frozen=True, kw_only=True)
class Spearman(Pearson):
    """Pearson's correlation of ranks: whether the order is right. Equal numbers have the mean of their ranks.

    The per-example columns are ranks in the whole set. A resample of the examples keeps these ranks. The difference
    from new ranks for each resample vanishes as the number of examples grows.
    """

    def values(self, texts: Sequence[str]) -> list[float]:
        from scipy.stats import rankdata

        ranks = rankdata([float(text) for text in texts])
        return (ranks - (len(ranks) + 1) / 2).tolist()
