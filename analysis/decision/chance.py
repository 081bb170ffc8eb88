"""Whether a study has learnt anything: the smallest of several settings at chance level is no recommendation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from sweep.diagnostics.sanity_checks import at_chance, loss_did_not_move

_NEEDED = ("score", "eval/majority_baseline", "eval/examples", "train/first_loss", "train/last_loss",
           "train/loss_change_stderr")  # fmt: skip
_CHANGE = (
    "What to change, in a study of another name: more steps (train.max_steps), other learning rates "
    "(study.learning_rate_multiplier=0.1,1,10), the modules that train; and check that each text has its own label."
)


def nothing_learnt(runs: pd.DataFrame, metric: str, higher_is_better: bool) -> str:
    """What a report states if no setting has learnt anything, and what to change; empty if one has, or if the runs do
    not show it.

    `runs` are the scored ones. A setting has learnt nothing if its mean score over seeds is at chance level, or if the
    training loss of none of its runs decreased.
    """
    known = [column for column in _NEEDED if column in runs]
    if runs.empty or not {"eval/majority_baseline", "train/first_loss"} & set(known):
        return ""
    numbers = runs[known].astype(float)
    means = numbers.groupby(runs["setting"]).mean()
    still = (
        pd.Series([bool(loss_did_not_move(run)) for run in _present(numbers)]).groupby(runs["setting"].tolist()).all()
    )
    chance = pd.Series([bool(at_chance(row, higher_is_better)) for row in _present(means)], means.index)
    if not (still | chance).all():
        return ""
    best = means["score"].idxmax() if higher_is_better else means["score"].idxmin()
    reached = f"the best, {best}, has {means.loc[best, 'score']:.4f}"
    if not chance.any():
        found = f"the training loss of no setting decreased ({reached})"
    else:
        guess = f"the same answer for all examples, {means.loc[chance, 'eval/majority_baseline'].mean():.4f}; {reached}"
        rest = "" if chance.all() else ", or its training loss did not decrease"
        found = f"the {metric} of each setting is at chance level ({guess}){rest}"
    return f"Nothing was learnt, so nothing is recommended: {found}. {_CHANGE}"


def _present(numbers: pd.DataFrame) -> Iterator[dict[str, float]]:
    """Each row as a record has it: without what was not measured."""
    for row in numbers.to_dict("records"):
        yield {str(key): value for key, value in row.items() if not math.isnan(value)}
