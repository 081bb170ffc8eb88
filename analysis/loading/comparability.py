"""Conditions that differ between runs: runs are comparable only under equal conditions."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from analysis.formatting import few
from sweep.core.errors import UserError, alternatives
from sweep.core.overrides import shell_override


def differing(runs: pd.DataFrame) -> pd.DataFrame:
    """The conditions that are not the same in all rows: one column per key, indexed by run id.

    Device kind and library versions are conditions too.
    """
    parsed = {
        text: {key: str(value) for key, value in json.loads(text).items()} for text in runs["conditions"].unique()
    }
    conditions = pd.DataFrame([parsed[text] for text in runs["conditions"]], index=runs["run_id"]).fillna("—")
    return conditions.loc[:, conditions.nunique() > 1]


def conditions(runs: pd.DataFrame) -> dict[str, str]:
    """Each condition of the runs with its value, or with all values where they differ."""
    values: dict[str, list[str]] = {}
    for text in runs["conditions"].unique():
        for key, value in json.loads(text).items():
            values.setdefault(str(key), []).append(str(value))
    return {key: ", ".join(sorted(set(found))) for key, found in values.items()}


def require_comparable(runs: pd.DataFrame, allow_different: Sequence[str] = ()) -> dict[str, list[str]]:
    """The conditions that differ and were allowed to: key → its values.

    Raises:
        UserError: where the runs have different conditions (the message names keys, values and runs); for an allowed
            key that does not differ; and for GPU and CPU memory together, which no option allows.
    """
    sources = runs["memory_source"].dropna().unique() if "memory_source" in runs else []
    if len(sources) > 1:
        raise UserError(
            f"memory was measured in different ways ({', '.join(map(str, sorted(sources)))}), and these figures are "
            "never ranked together; use one study for each"
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
    by_run = runs.set_index("run_id")
    names = by_run["setting"].astype(str) + " · seed " + by_run["seed"].astype(str)
    lines = [
        f"  {key}: " + "; ".join(f"{value} ({few(list(group))})" for value, group in names.groupby(differ[key]))
        for key in differ.columns
    ] or ["  their digests differ, and the conditions themselves were too long for the store"]
    return "\n".join(
        [
            "these runs have different conditions and are not comparable:",
            *lines,
            "Use one study for each; or delete the runs that differ in MLflow and repeat the study's command; or, if "
            "the difference does not matter, allow it, and the charts will mention it: "
            f"{shell_override('allow_different', refused)}",
        ]
    )
