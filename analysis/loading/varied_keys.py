"""Keys of the config that differ between the runs of a study, such as `variant.r`, as columns of tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

_KEY = re.compile(r"(variant|train|task|model|study)\.")
_NO_KEYS = ("seed", "variant.name")  # they have columns of their own


def varied(params: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """One row for each run, and one column for each parameter whose value is not the same in all runs. A run that lacks
    the parameter has no value. Columns of numbers have numbers."""
    table = pd.DataFrame(list(params), index=range(len(params)), dtype=object)
    names = [
        str(name)
        for name in table.columns
        if _KEY.match(str(name)) and name not in _NO_KEYS and table[name].nunique(dropna=False) > 1
    ]
    return pd.DataFrame({name: _numbers(table[name]) for name in sorted(names)}, index=table.index)


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if (numbers.notna() == column.notna()).all() else column


def config_keys(table: pd.DataFrame) -> list[str]:
    """The columns of a table that are keys of the config."""
    return [str(name) for name in table.columns if _KEY.match(str(name))]


def with_keys(settings: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The table of settings with the keys that have one value in each setting."""
    found = settings
    for key in config_keys(runs):
        groups = runs.groupby("setting")[key]
        if key not in found and (groups.nunique(dropna=False) <= 1).all():
            found = found.assign(**{key: found["setting"].astype(str).map(groups.first())})
    return found
