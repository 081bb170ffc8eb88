"""The decision: the smallest-memory setting that reaches the score threshold, and a verdict on each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.decision.noninferiority import INCONCLUSIVE, verdicts
from analysis.decision.sample_size import required_sample_size
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.threshold import Rule
from sweep.core.errors import UserError

# Share of the smaller figure. Means over different seeds, and so over different batches, differ by up to this much by
# chance.
MEMORY_TIE = 0.001
_NORMAL = 1.96  # standard errors on each side of a 95% interval


class Decision(NamedTuple):
    """`settings` with the columns `meets`, `selected` and `best` of the point-estimate rule, and where there is noise,
    `verdict`, `p_meets`, `p_fails`, `sample_size`, and `score_interval`: half the 95% interval of the mean score over
    its seeds (Student's t) and over the validation examples (normal), as far as they are known. `score_threshold` is
    the score that a setting must reach. `selected` is None where nothing is recommended."""

    settings: pd.DataFrame
    best: str
    selected: str | None
    score_threshold: float
    rule: Rule

    def without_selection(self) -> Decision:
        """The same with nothing recommended."""
        return self._replace(selected=None, settings=self.settings.assign(selected=False))


def decide(
    settings: pd.DataFrame,
    *,
    threshold: float = 0.99,
    margin: float | None = None,
    higher_is_better: bool = True,
    noise: ScoreNoise | None = None,
) -> Decision:
    """The point-estimate rule on means over seeds; with `noise`, a verdict per setting
    (`analysis.decision.noninferiority`).

    The pick has the least memory of those that meet the threshold (`Rule`). docs/decision.md has the rule and its ties.

    `settings` has a row per setting with `setting`, `score`, `memory`, `trainable_params`, `outcomes` and `reason`, and
    may have `seeds` (the sorted seeds behind its means).

    Raises:
        UserError: without any score and memory; where all that reach the threshold lack a memory figure; or where a
            share of the best has no meaning, since the best is not positive.
    """
    scored = settings[settings["score"].notna()]
    if not (scored["memory"].notna()).any():
        raise UserError(_nothing_to_decide(settings))
    rule = Rule(threshold, margin, higher_is_better)
    scores = scored["score"]
    best_score = float(scores.max() if higher_is_better else scores.min())
    if margin is None and best_score <= 0:
        raise UserError(_no_share(settings, best_score, threshold))
    score_threshold = rule.score_threshold(best_score)
    meets = settings["score"] >= score_threshold if higher_is_better else settings["score"] <= score_threshold
    sign = -1.0 if higher_is_better else 1.0
    ranked = scored.assign(loss=sign * scores)
    best = str(ranked.sort_values(["loss", "memory", "setting"])["setting"].iloc[0])
    eligible = ranked[meets.reindex(ranked.index) & ranked["memory"].notna()]
    if eligible.empty:
        raise UserError(
            f"the settings that reach the threshold ({', '.join(settings.loc[meets, 'setting'].astype(str))}) have no "
            "memory figure, so the smallest of them is unknown; run the study's command again, or choose another "
            "memory_metric"
        )
    tied = eligible[_ties_with_smallest(eligible)]
    selected = str(tied.sort_values(["loss", "trainable_params", "setting"])["setting"].iloc[0])
    decided = settings.assign(meets=meets, selected=settings["setting"] == selected, best=settings["setting"] == best)
    return Decision(_with_verdicts(decided, noise, rule), best, selected, score_threshold, rule)


def _ties_with_smallest(eligible: pd.DataFrame) -> pd.Series:
    smallest = eligible.loc[eligible["memory"].idxmin()]
    ties = eligible["memory"] == smallest["memory"]
    if "seeds" in eligible:
        other_seeds = pd.Series([seeds != smallest["seeds"] for seeds in eligible["seeds"]], index=eligible.index)
        ties |= other_seeds & (eligible["memory"] <= smallest["memory"] * (1 + MEMORY_TIE))
    return ties


def _with_verdicts(settings: pd.DataFrame, noise: ScoreNoise | None, rule: Rule) -> pd.DataFrame:
    if noise is None:
        return settings
    found = verdicts(noise, rule)
    place = {name: i for i, name in enumerate(noise.settings)}
    at = [place.get(str(name)) for name in settings["setting"]]
    sample_sizes = required_sample_size(noise, found)
    return settings.assign(
        verdict=pd.Series([None if i is None else str(found.verdict[i]) for i in at], settings.index, dtype=object),
        p_meets=[np.nan if i is None else float(found.p_meets[i]) for i in at],
        p_fails=[np.nan if i is None else float(found.p_fails[i]) for i in at],
        score_interval=_intervals(settings, noise, at),
        sample_size=pd.Series([None if i is None else sample_sizes[i] for i in at], index=settings.index, dtype=object),
    )


def _intervals(settings: pd.DataFrame, noise: ScoreNoise, at: Sequence[int | None]) -> np.ndarray:
    seeds = settings["score_halfwidth"].to_numpy(float) if "score_halfwidth" in settings else np.full(len(at), np.nan)
    own = noise.own_variance
    examples = np.array([np.nan if i is None or own is None else _NORMAL * np.sqrt(own[i]) for i in at])
    both = np.sqrt(np.nansum([seeds**2, examples**2], axis=0))
    return np.where(np.isnan(seeds) & np.isnan(examples), np.nan, both)


def inconclusive(settings: pd.DataFrame) -> pd.DataFrame:
    """The settings without a verdict, smallest memory first."""
    return settings[settings["verdict"] == INCONCLUSIVE].sort_values(["memory", "setting"])


def _no_share(settings: pd.DataFrame, best: float, threshold: float) -> str:
    rule = f"the best score is {best:g}: a share of it ({threshold:.4g}) has no meaning. Give an absolute distance "
    rows = settings.itertuples()
    scores = [f"  {row.setting}: score {row.score:.4g}, memory {row.memory:,.0f} bytes" for row in rows]
    return "\n".join([rule + "instead: margin=0.01", *scores])


def _nothing_to_decide(settings: pd.DataFrame) -> str:
    lines = []
    for row in settings.itertuples():
        lacks = " and ".join(["a score"] * bool(np.isnan(row.score)) + ["a memory figure"] * bool(np.isnan(row.memory)))
        lines.append(f"  {row.setting}: {', '.join(f'{count} {outcome}' for outcome, count in row.outcomes.items())}")
        lines[-1] += f" ({row.reason})" if row.reason else f", without {lacks}"
    return (
        "no run has both a score and a memory figure, so there is nothing to recommend:\n"
        + "\n".join(lines)
        + "\nFix the cause and run the study's command again: it repeats what failed."
    )
