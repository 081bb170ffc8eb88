"""The Pareto front: the settings that no other setting dominates in score and cost."""

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


def hypervolume(cost: pd.Series, score: pd.Series, higher_is_better: bool) -> float:
    """How good a front is, in one number: the share of the box from the cheapest to the dearest row, and from the worst
    to the best score, that the front dominates. 1 where the cheapest is the best; NaN where the box has no area.

    It compares fronts over the same box only (Zitzler & Thiele 1998).
    """
    known = cost.notna() & score.notna()
    cost, gain = cost[known], score[known] if higher_is_better else -score[known]
    if not len(cost) or cost.max() == cost.min() or gain.max() == gain.min():
        return float("nan")
    front = pd.DataFrame({"cost": cost, "gain": gain})[on_front(cost, gain, True)].drop_duplicates().sort_values("cost")
    edges = [*front["cost"], cost.max()]
    area = sum(
        (right - left) * (height - gain.min())
        for left, right, height in zip(edges[:-1], edges[1:], front["gain"], strict=True)
    )
    return float(area / ((cost.max() - cost.min()) * (gain.max() - gain.min())))
