"""Runs → settings: means over the `ok` replicates, and the spread that is left."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from sweep.errors import first_line

# Measurements that are averaged over the replicates of a setting, where the runs have them.
AVERAGED = ("train_seconds", "tokens_per_second", "trainable_params", "total_params", "energy_joules")


def settings(runs: pd.DataFrame, memory_metric: str) -> pd.DataFrame:
    """One row per setting, in order of first appearance; the latest run of a setting and seed counts.

    Columns: `setting`, `variant`, `n_ok`, `outcomes` (dict outcome → count), `reason` (of the first run that was not
    ok), `score` (mean), `score_sd` and `score_halfwidth` (95% t-interval; NaN with fewer than two replicates, since one
    says nothing of its noise), `memory` (mean of `memory_metric`), and the measurements in `AVERAGED`. Settings without
    an `ok` run keep their row, with NaN scores. `seeds` are the sorted seeds behind the means.
    """
    used = ["setting", "variant", "seed", "outcome", "reason", "score", memory_metric, *AVERAGED]
    latest = runs[[name for name in dict.fromkeys(used) if name in runs]]
    latest = latest.drop_duplicates(["setting", "seed"], keep="last")
    rows = [_setting(str(name), group, memory_metric) for name, group in latest.groupby("setting", sort=False)]
    return pd.DataFrame(rows)


def _setting(name: str, group: pd.DataFrame, memory_metric: str) -> dict[str, object]:
    ok = group[group["outcome"] == "ok"]
    bad = group[group["outcome"] != "ok"]
    scores = ok["score"].astype(float).dropna() if "score" in ok else pd.Series(dtype=float)
    deviation = float(scores.std(ddof=1)) if len(scores) > 1 else math.nan
    return {
        "setting": name,
        "variant": group["variant"].iloc[0],
        "n_ok": len(ok),
        "outcomes": {str(k): int(v) for k, v in group["outcome"].value_counts(sort=False).items()},
        "reason": first_line(bad["reason"].iloc[0]) if len(bad) else "",
        "score": _mean(ok, "score"),
        "score_sd": deviation,
        "score_halfwidth": t_halfwidth(deviation, len(scores)),
        "memory": _mean(ok, memory_metric),
        "seeds": tuple(sorted(ok["seed"].tolist())),
        **{column: _mean(ok, column) for column in AVERAGED},
    }


def t_halfwidth(deviation: float, count: int, confidence: float = 0.95) -> float:
    """Half the width of Student's t-interval of a mean. A percentile bootstrap over 3 seeds covers 75%, this 95%."""
    if count < 2:
        return math.nan
    return float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)


def _mean(rows: pd.DataFrame, column: str) -> float:
    if column not in rows or not len(rows):
        return math.nan
    return float(rows[column].astype(float).mean())
