"""The Pareto front: what cannot be had better without paying more."""

from __future__ import annotations

import numpy as np
import pandas as pd


def on_front(cost: pd.Series, score: pd.Series, higher_is_better: bool) -> pd.Series:
    """For each row, whether no other row is at least as good in both and better in one. Cost is minimised.

    Rows that are equal in both are all on the front, or none. A row with a missing value is not.
    """
    gain = score if higher_is_better else -score
    front = pd.Series(False, index=cost.index)
    known = cost.notna() & gain.notna()
    best = -np.inf  # of all rows that cost less
    for _, tied in gain[known].groupby(cost[known]):  # in ascending order of cost
        if tied.max() > best:
            front[tied.index[tied == tied.max()]] = True
            best = tied.max()
    return front
