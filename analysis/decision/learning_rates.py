"""Studies that give each variant the same number of learning rates around its own. The best rate represents the
variant, and the cost of all its runs is the cost of the search."""

from __future__ import annotations

import pandas as pd

FACTOR = "learning_rate_multiplier"  # of the variant's own learning rate, as runs are tagged with it


def data(runs: pd.DataFrame, higher_is_better: bool) -> pd.DataFrame:
    """One row per variant that was run under several factors; empty where there is none.

    Columns: `variant`; `factors`, ascending; `best_factor` and its mean `score` over the `ok` runs, NaN where none was
    ok; `n_runs`, `train_seconds` and `energy_joules` of all its runs, whatever their outcome, repeats included: NaN
    where a run lacks the figure, since a part of the cost would look like all of it.
    """
    rows = []
    known = runs[pd.to_numeric(runs[FACTOR], errors="coerce").notna()] if FACTOR in runs else runs.iloc[:0]
    for variant, own in known.groupby("variant", sort=False):
        factors = own[FACTOR].astype(float)
        if factors.nunique() < 2:
            continue
        means = own[own["outcome"] == "ok"].groupby(factors)["score"].mean().dropna()
        best = (means.idxmax() if higher_is_better else means.idxmin()) if len(means) else float("nan")
        costs = own.reindex(columns=["train_seconds", "energy_joules"]).astype(float).sum(skipna=False)
        rows.append(
            {
                "variant": str(variant),
                "factors": sorted(factors.unique()),
                "best_factor": best,
                "score": means.get(best, float("nan")),
                "n_runs": len(own),
                **costs,
            }
        )
    return pd.DataFrame(rows)


def sentences(brackets: pd.DataFrame) -> list[str]:
    """For the report: the best rate, whether a wider bracket is worth a try, and the cost of the search."""
    found = []
    for row in brackets.itertuples():
        tried = ", ".join(f"×{factor:g}" for factor in row.factors)
        if pd.isna(row.best_factor):
            found.append(f"{row.variant} has no ok run at any of its learning rates ({tried} of its own).")
            continue
        edge = row.best_factor in (row.factors[0], row.factors[-1])
        hint = ", at the edge of the bracket: the best rate may lie outside" if edge else ""
        costs = [f"{row.train_seconds:,.1f} s of training"] if pd.notna(row.train_seconds) else []
        costs += [f"{row.energy_joules:,.0f} J"] if pd.notna(row.energy_joules) else []
        cost = f"; its {row.n_runs} runs took {' and '.join(costs)}" if costs else ""
        found.append(
            f"{row.variant}: of the learning rates {tried} of its own, ×{row.best_factor:g} scored best "
            f"({row.score:.4f}){hint}{cost}."
        )
    return found
