"""What differs between runs that may not: runs compare only under equal conditions."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from sweep.core.errors import UserError, alternatives

_SHOWN = 6  # runs that are named per value


def differing(runs: pd.DataFrame) -> pd.DataFrame:
    """The conditions that are not the same in all rows: one column per key, indexed by run id. Device kind and library
    versions are conditions, too."""
    parsed = {text: json.loads(text) for text in runs["conditions"].unique()}
    conditions = pd.DataFrame([parsed[text] for text in runs["conditions"]], index=runs["run_id"]).fillna("—")
    return conditions.loc[:, conditions.nunique() > 1]


def conditions(runs: pd.DataFrame) -> dict[str, str]:
    """What the runs were made under: each condition with its value, all of them where they differ."""
    values: dict[str, list[str]] = {}
    for text in runs["conditions"].unique():
        for key, value in json.loads(text).items():
            values.setdefault(str(key), []).append(str(value))
    return {key: ", ".join(sorted(set(found))) for key, found in values.items()}


def require_comparable(runs: pd.DataFrame, allow_different: Sequence[str] = ()) -> dict[str, list[str]]:
    """The conditions that differ and were allowed to: key → its values.

    Raises:
        UserError: naming keys, values and runs, where rows were not made under the same conditions; for an allowed key
            that does not differ; and where GPU and CPU memory would be ranked together, which nothing allows.
    """
    sources = runs["memory_source"].dropna().unique() if "memory_source" in runs else []
    if len(sources) > 1:
        raise UserError(
            f"memory was measured in different ways ({', '.join(map(str, sorted(sources)))}), and these figures are "
            "never ranked together; give each its own study"
        )
    same = runs["conditions_hash"].nunique() <= 1
    if same and not allow_different:
        return {}
    differ = differing(runs)
    if unknown := [key for key in allow_different if key not in differ.columns]:
        raise UserError(
            f"allow_different = {', '.join(unknown)}: no such condition differs between these runs; "
            f"{alternatives(unknown[0], [str(column) for column in differ.columns])}"
        )
    refused = [str(key) for key in differ.columns if key not in allow_different]
    if refused or (differ.columns.empty and not same):
        raise UserError(_refusal(runs, differ[refused], refused))
    return {str(key): sorted(map(str, differ[key].unique())) for key in differ.columns}


def _refusal(runs: pd.DataFrame, differ: pd.DataFrame, refused: list[str]) -> str:
    names = runs.set_index("run_id")["setting"].astype(str) + " · seed " + runs.set_index("run_id")["seed"].astype(str)
    lines = []
    for key in differ.columns:
        groups = [(value, list(group)) for value, group in names.groupby(differ[key])]
        told = "; ".join(f"{value} ({_few(group)})" for value, group in groups)
        lines.append(f"  {key}: {told}")
    if not lines:
        lines.append("  their fingerprints differ, and the conditions themselves were too long to be kept")
    keys = ",".join(refused)
    return (
        "these runs were made under different conditions and do not compare:\n"
        + "\n".join(lines)
        + "\nGive each its own study; or delete the odd ones in MLflow and run the study's command again; or, where "
        f"the difference does not matter, say so, and the charts will: allow_different=[{keys}]"
    )


def _few(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
