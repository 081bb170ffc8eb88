"""The decision: the smallest-memory setting that reaches the score threshold, and a verdict on each setting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.decision.noninferiority import FAILS, MEETS, verdicts
from analysis.decision.posterior import Posterior, posterior
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.threshold import Rule
from analysis.decision.verdict_words import verdict_of
from sweep.core.errors import UserError
from sweep.statistics.chances import MEMORY_TIE

PRICE = 2.0


class Decision(NamedTuple):
    """`settings` with the columns `meets`, `selected` and `best` of the point-estimate rule, and where there is noise,
    with those of CHANCES. `score_threshold` is the score that a setting must reach. `selected` is None where nothing is
    recommended. `least_loss` is the setting of least expected loss at `price`: missing the threshold by as much again
    as is allowed weighs as much as `price` times the memory of the right pick."""

    settings: pd.DataFrame
    best: str
    selected: str | None
    score_threshold: float
    rule: Rule
    price: float = PRICE
    posterior: Posterior | None = None
    least_loss: str | None = None

    def without_selection(self) -> Decision:
        """The same with nothing recommended."""
        return self._replace(selected=None, least_loss=None, settings=self.settings.assign(selected=False))


def decide(
    settings: pd.DataFrame,
    *,
    threshold: float = 0.99,
    margin: float | None = None,
    higher_is_better: bool = True,
    noise: ScoreNoise | None = None,
    price: float = PRICE,
) -> Decision:
    """The point-estimate rule on means over seeds; with `noise`, the chances of each setting
    (`analysis.decision.posterior`) and whether tests confirm them (`analysis.decision.noninferiority`).

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
    made = Decision(decided, best, selected, score_threshold, rule, price)
    return made if noise is None else _with_chances(made, noise)


def _ties_with_smallest(eligible: pd.DataFrame) -> pd.Series:
    smallest = eligible.loc[eligible["memory"].idxmin()]
    ties = eligible["memory"] == smallest["memory"]
    if "seeds" in eligible:
        other_seeds = pd.Series([seeds != smallest["seeds"] for seeds in eligible["seeds"]], index=eligible.index)
        ties |= other_seeds & (eligible["memory"] <= smallest["memory"] * (1 + MEMORY_TIE))
    return ties


# `verdict` is p_reaches_bar in words. `confirmed`: the tests support what is likelier of reaching and missing;
# `p_value_meets` and `p_value_fails` are theirs. `expected_memory_overspent` is a share of the right pick's memory,
# `expected_score_loss` in the score's unit. `score_low` to `score_high` is the 95% interval of the true score.
CHANCES = ("verdict", "confirmed", "p_value_meets", "p_value_fails", "p_reaches_bar", "p_best", "p_right_pick",
           "expected_memory_overspent", "expected_score_loss", "expected_loss", "score_low", "score_high")  # fmt: skip


def _with_chances(made: Decision, noise: ScoreNoise) -> Decision:
    settings = made.settings
    memory = settings.set_index(settings["setting"].astype(str))["memory"].reindex(noise.settings).to_numpy(float)
    found = posterior(noise, made.rule, memory)
    tests, chances = verdicts(noise, made.rule), found.chances
    confirmed = np.where(chances.p_reaches >= 0.5, tests.verdict == MEETS, tests.verdict == FAILS)
    low, high = (chances.low, chances.high) if made.rule.higher_is_better else (-chances.high, -chances.low)
    loss = chances.loss(made.price)
    of_noise = pd.DataFrame(
        {
            "verdict": [verdict_of(chance) for chance in chances.p_reaches],
            "confirmed": confirmed,
            "p_value_meets": tests.p_meets,
            "p_value_fails": tests.p_fails,
            "p_reaches_bar": chances.p_reaches,
            "p_best": chances.p_best,
            "p_right_pick": chances.p_right_pick,
            "expected_memory_overspent": chances.memory_overspent,
            "expected_score_loss": chances.score_loss,
            "expected_loss": loss,
            "score_low": low,
            "score_high": high,
        },
        index=noise.settings,
    )
    aligned = of_noise.reindex(settings["setting"].astype(str)).set_index(settings.index)
    aligned["confirmed"] = aligned["confirmed"].eq(True)
    aligned["verdict"] = aligned["verdict"].astype(object).where(aligned["verdict"].notna(), None)
    least = noise.settings[int(np.where(np.isfinite(memory), loss, np.inf).argmin())]
    return made._replace(settings=settings.assign(**aligned), posterior=found, least_loss=least)


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
