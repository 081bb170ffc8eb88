"""The chances of settings, for tables and for programs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import formatting
from analysis.decision.selection import Decision
from analysis.decision.verdict_words import MISSES, PROBABLY, PROBABLY_NOT, REACHES
from analysis.formatting import percent

COLUMNS = ("p_reaches_bar", "p_best", "p_right_pick", "expected_memory_overspent", "expected_score_loss",
           "expected_loss", "p_value_meets", "p_value_fails")  # fmt: skip
TONES = {REACHES: "good", PROBABLY: "good", MISSES: "bad", PROBABLY_NOT: "bad"}
_MOST = 12
_SLIGHT = 0.01


def words(row: Any) -> str:
    """ "96%, reaches it, confirmed"."""
    if not isinstance(row.verdict, str):
        return formatting.MISSING
    parts = [percent(row.p_reaches_bar), row.verdict, *["confirmed"] * bool(row.confirmed)]
    return ", ".join(parts)


def picks(decision: Decision) -> list[dict[str, str]]:
    """A row per setting that may be a good choice, smallest memory first; none where there is nothing to choose."""
    settings = decision.settings
    if decision.selected is None or decision.posterior is None or settings["score"].notna().sum() < 2:
        return []
    chosen = settings["setting"].isin([decision.selected, decision.least_loss])
    able = chosen | (settings["p_right_pick"] >= _SLIGHT)
    kept = settings[able].sort_values(["p_right_pick", "memory"], ascending=[False, True])[:_MOST]
    kept = pd.concat([kept, settings[chosen]]).drop_duplicates("setting").sort_values(["memory", "setting"])
    return [
        {
            "setting": str(row.setting),
            "chance to be the smallest that reaches the threshold": percent(row.p_right_pick),
            "chance to be the best": percent(row.p_best),
            "expected memory in excess": f"{row.expected_memory_overspent:.0%}",
            "expected miss of the threshold": f"{row.expected_score_loss:.4f}",
            f"expected loss at price={decision.price:g}": f"{row.expected_loss:.2f}",
        }
        for row in kept.itertuples()
    ]


def note(decision: Decision) -> str:
    """Below that table: units, and how much of the seeds' luck settings share."""
    allowed = "1% of the best score"
    if decision.rule.margin:
        allowed = f"{decision.rule.margin:g}"
    elif decision.rule.margin is None and decision.rule.threshold < 1:
        allowed = f"{100 * (1 - decision.rule.threshold):.3g}% of the best score"
    text = (
        "Memory in excess is a share of the memory of the right pick, where the setting reaches the threshold. The "
        f"expected loss adds {decision.price:g} for each {allowed} by which the threshold is missed."
    )
    shared = None if decision.posterior is None else decision.posterior.shared_luck()
    if shared is not None:
        text += (
            f" Settings share about {shared:.0%} of the variance over seeds, and the comparison of runs of equal seed "
            "leaves it out."
        )
    return text
