"""What differs between runs that may not: runs compare only under equal conditions."""

from __future__ import annotations

import json

import pandas as pd

from sweep.errors import UserError


def differing(runs: pd.DataFrame) -> pd.DataFrame:
    """The conditions that are not the same in all rows: one column per key, indexed by run id."""
    conditions = pd.DataFrame([json.loads(text) for text in runs["conditions.values"]], index=runs["run_id"]).fillna(
        "—"
    )
    return conditions.loc[:, conditions.nunique() > 1]


def require_comparable(runs: pd.DataFrame) -> None:
    """Raises UserError, naming keys, values and runs, where the rows were not made under the same conditions."""
    if runs["conditions"].nunique() <= 1:
        return
    differ = differing(runs)
    names = runs.set_index("run_id")["setting"].astype(str) + " · seed " + runs.set_index("run_id")["seed"].astype(str)
    lines = []
    for key in differ.columns:
        groups = names.groupby(differ[key])
        lines.append(f"  {key}: " + "; ".join(f"{value} ({', '.join(group)})" for value, group in groups))
    raise UserError(
        "these runs were made under different conditions and do not compare:\n"
        + "\n".join(lines)
        + "\nDelete the odd ones in MLflow and run the study's command again, or give each its own study."
    )
