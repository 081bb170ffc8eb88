"""Pick stability: how often the point-estimate rule shares the same setting when seeds and examples are drawn anew."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.decision.score_noise import resampled
from analysis.decision.threshold import Rule
from analysis.loading.per_example import Absent, Examples

RESAMPLES = 1000


class Stability(NamedTuple):
    """`share` of the resamples with the same pick, `shares` the share of each setting that was picked, most first, and
    `over` what was drawn anew: "seeds and examples", "seeds" or "examples"."""

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
    several = bool((runs["setting"].value_counts() > 1).any())
    if scores is None and not several:
        return None
    if scores is None:
        scores = np.tile(runs["score"].to_numpy(float), (resamples, 1))
    over = " and ".join([*(["seeds"] if several else []), *([over] if over else [])])
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
    return Stability(shares.get(selected, 0.0), shares, over)


def _scores(
    runs: pd.DataFrame, examples: Examples | Absent, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray | None, str]:
    if not isinstance(examples, Absent):
        position = {run_id: i for i, run_id in enumerate(examples.run_ids)}
        return resampled(examples, resamples, rng)[:, [position[run_id] for run_id in runs["run_id"]]], "examples"
    score = runs["score"].to_numpy(float)
    if "n_examples" in runs and runs["n_examples"].notna().all() and score.min() >= 0 and score.max() <= 1:
        n = runs["n_examples"].to_numpy(int)
        return rng.binomial(n, score, (resamples, len(n))) / n, "examples"
    return None, ""


def _picks(means: np.ndarray, settings: pd.DataFrame, rule: Rule) -> np.ndarray:
    """The point-estimate rule, row by row: the column picked, -1 where nothing can be."""
    gain = means if rule.higher_is_better else -means
    best = np.nanmax(gain, axis=1, keepdims=True)
    limit = np.array([rule.score_threshold(value) for value in (best if rule.higher_is_better else -best)[:, 0]])[
        :, None
    ]
    memory = settings["memory"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        meets = (gain >= (limit if rule.higher_is_better else -limit)) & np.isfinite(memory)
    cost = np.where(meets, memory, np.inf)
    smallest = meets & (cost == cost.min(axis=1, keepdims=True))
    # Of those that tie, the better score; where that ties, too, the first by parameters, then by name.
    order = np.lexsort((settings["setting"].astype(str), settings["trainable_params"].fillna(np.inf)))
    ranked = np.where(smallest, gain, -np.inf)[:, order].argmax(axis=1)
    return np.where(smallest.any(axis=1), order[ranked], -1)
