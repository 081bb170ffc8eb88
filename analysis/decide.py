"""The decision: the smallest-memory setting that reaches the threshold."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sweep.errors import UserError


class Decision(NamedTuple):
    """`settings` with the columns `meets`, `pick` and `best`; `bar` is the score that a setting has to reach."""

    settings: pd.DataFrame
    best: str
    pick: str
    bar: float


def decide(
    settings: pd.DataFrame, *, threshold: float = 0.99, margin: float | None = None, higher_is_better: bool = True
) -> Decision:
    """The literal rule, on means over seeds.

    A setting meets the threshold with score ≥ threshold × best; where lower is better, with score ≤ best / threshold;
    with an absolute `margin`, within that distance of the best. The pick is the one with the least memory; ties go to
    the better score, then to fewer trainable parameters, then to the name. Settings without an `ok` run, or without a
    memory figure, cannot be picked.

    Raises:
        UserError: without any `ok` run; or where a share of the best has no meaning, since the best is not positive.
    """
    scored = settings[settings["score"].notna() & settings["memory"].notna()]
    if scored.empty:
        raise UserError(_nothing_to_decide(settings))
    scores = scored["score"]
    best_score = float(scores.max() if higher_is_better else scores.min())
    bar = _bar(best_score, threshold, margin, higher_is_better)
    meets = settings["score"] >= bar if higher_is_better else settings["score"] <= bar
    sign = -1.0 if higher_is_better else 1.0
    order = scored.assign(loss=sign * scores).sort_values(["memory", "loss", "trainable_params", "setting"])
    pick = str(order.loc[meets.reindex(order.index), "setting"].iloc[0])
    best = str(order.sort_values(["loss", "memory", "setting"])["setting"].iloc[0])
    decided = settings.assign(meets=meets, pick=settings["setting"] == pick, best=settings["setting"] == best)
    return Decision(settings=decided, best=best, pick=pick, bar=bar)


def _bar(best: float, threshold: float, margin: float | None, higher_is_better: bool) -> float:
    if margin is not None:
        return best - margin if higher_is_better else best + margin
    if best <= 0:
        raise UserError(
            f"the best score is {best:g}: a share of it ({threshold:.0%}) has no meaning. Give an absolute distance "
            "instead: margin=0.01"
        )
    return threshold * best if higher_is_better else best / threshold


def _nothing_to_decide(settings: pd.DataFrame) -> str:
    lines = [
        f"  {row.setting}: {', '.join(f'{count} {outcome}' for outcome, count in row.outcomes.items())}"
        + (f" ({row.reason})" if row.reason else "")
        for row in settings.itertuples()
    ]
    return (
        "no run of this study has both a score and a memory figure, so there is nothing to recommend:\n"
        + "\n".join(lines)
        + "\nMend the cause and run the study's command again: it repeats what failed."
    )
