"""How often the point-estimate rule selects the same setting, if seeds and examples are drawn again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.decision.score_noise import answers_counted, resampled
from analysis.decision.threshold import Rule
from analysis.loading.per_example import Absent, Examples

RESAMPLES = 1000


class Stability(NamedTuple):
    """`share` is the share of the resamples with the same selected setting, `shares` that of each selected setting, the
    largest first. `over` names what was drawn again: "seeds and examples", "seeds" or "examples"."""

    share: float
    shares: dict[str, float]
    over: str


def stability(
    runs: pd.DataFrame,
    settings: pd.DataFrame,
    selected: str,
    rule: Rule,
    examples: Examples | Absent,
    resamples: int = RESAMPLES,
    rng_seed: int = 0,
) -> Stability | None:
    """None where nothing can be drawn anew: one seed each, and no results of single examples.

    `runs` are the scored ones (`run_id`, `setting`, `score`, perhaps `n_examples`); `settings` has `setting`, `memory`
    and `trainable_params`. Examples are the same ones for all runs of a resample; seeds are drawn within a setting, as
    many as it has. Where a score is the share of right answers among `n_examples` and the answers are not known, it is
    drawn from the binomial distribution, setting by setting.
    """
    rng = np.random.default_rng(rng_seed)
    scores, over = _scores(runs, examples, resamples, rng)
    if runs["setting"].duplicated().any():
        over = ["seeds", *over]
    if not over:
        return None
    names = settings["setting"].astype(str).tolist()
    means = np.full((resamples, len(names)), np.nan)
    of_setting = runs["setting"].astype(str).to_numpy()
    for column, name in enumerate(names):
        own = scores[:, of_setting == name]
        if own.shape[1]:
            drawn = rng.integers(0, own.shape[1], own.shape)
            means[:, column] = np.take_along_axis(own, drawn, axis=1).mean(axis=1)
    picked = _picks(means, settings, rule)
    found = pd.Series([names[i] for i in picked if i >= 0]).value_counts() / resamples
    shares = {str(name): float(share) for name, share in found.items()}
    return Stability(shares.get(selected, 0.0), shares, " and ".join(over))


def _scores(
    runs: pd.DataFrame, examples: Examples | Absent, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Scores of the runs, resamples × runs, and what was drawn anew for them."""
    if not isinstance(examples, Absent):
        return resampled(examples, resamples, rng)[:, examples.places(runs)], ["examples"]
    score, n = runs["score"].to_numpy(float), answers_counted(runs)
    if n is None:
        return np.tile(score, (resamples, 1)), []
    return rng.binomial(n.astype(int), score, (resamples, len(n))) / n, ["examples"]


def _picks(means: np.ndarray, settings: pd.DataFrame, rule: Rule) -> np.ndarray:
    """The point-estimate rule, row by row: the column picked, -1 where nothing can be."""
    gain = means if rule.higher_is_better else -means
    best = np.nanmax(gain, axis=1, keepdims=True)
    limits = [rule.score_threshold(value) for value in (best if rule.higher_is_better else -best)[:, 0]]
    limit = np.array(limits)[:, None]
    memory = settings["memory"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        meets = (gain >= (limit if rule.higher_is_better else -limit)) & np.isfinite(memory)
    cost = np.where(meets, memory, np.inf)
    smallest = meets & (cost == cost.min(axis=1, keepdims=True))
    # Of those that tie, the better score; where that ties, too, the first by parameters, then by name.
    order = np.lexsort((settings["setting"].astype(str), settings["trainable_params"].fillna(np.inf)))
    ranked = np.where(smallest, gain, -np.inf)[:, order].argmax(axis=1)
    return np.where(smallest.any(axis=1), order[ranked], -1)
