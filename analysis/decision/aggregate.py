"""Runs → settings: means over the `ok` replicates, and the spread over them."""

from __future__ import annotations

import pandas as pd

from sweep.core.errors import first_line
from sweep.core.measurements import PAGED_BYTES

# Measurements that are averaged over the replicates of a setting, where the runs have them.
AVERAGED = ("train_seconds", "tokens_per_second", "trainable_params", "total_params", "energy_joules")


def settings(runs: pd.DataFrame, memory_metric: str) -> pd.DataFrame:
    """One row per setting, in order of first appearance; the latest run of a setting and seed counts.

    Columns: `setting`, `variant`, `n_ok`, `outcomes` (dict outcome → count), `reason` (of the first run that was not
    ok), `score` (mean), `score_sd` (NaN with fewer than two replicates, since one value has no spread), `memory` (mean
    of `memory_metric`), `paged_memory` (the paged optimizer state), and the measurements in `AVERAGED`. Settings
    without an `ok` run keep their row, with NaN scores. `seeds` are the sorted seeds behind the means.
    """
    latest = runs.drop_duplicates(["setting", "seed"], keep="last")
    names = latest["setting"].drop_duplicates().tolist()
    ok, bad = latest[latest["outcome"] == "ok"], latest[latest["outcome"] != "ok"]
    columns = list(dict.fromkeys(["score", memory_metric, PAGED_BYTES, *AVERAGED]))
    numbers = ok.reindex(columns=columns).astype(float)
    by_setting = numbers.groupby(ok["setting"])
    means = by_setting.mean().reindex(names)
    deviation = by_setting["score"].std(ddof=1).reindex(names)
    reasons = bad.drop_duplicates("setting").set_index("setting")["reason"]
    seeds = {name: tuple(sorted(group.tolist())) for name, group in ok.groupby("setting")["seed"]}
    outcomes: dict[object, dict[str, int]] = {}
    for (name, outcome), number in latest.groupby(["setting", "outcome"], sort=False).size().items():
        outcomes.setdefault(name, {})[str(outcome)] = int(number)
    return pd.DataFrame(
        {
            "setting": [str(name) for name in names],
            "variant": latest.drop_duplicates("setting")["variant"].tolist(),
            "n_ok": ok["setting"].value_counts().reindex(names, fill_value=0).tolist(),
            "outcomes": [outcomes[name] for name in names],
            "reason": [first_line(reasons[name]) if name in reasons else "" for name in names],
            "score": means["score"].tolist(),
            "score_sd": deviation.tolist(),
            "memory": means[memory_metric].tolist(),
            "paged_memory": means[PAGED_BYTES].tolist(),
            "seeds": [seeds.get(name, ()) for name in names],
            **{column: means[column].tolist() for column in AVERAGED},
        }
    )
