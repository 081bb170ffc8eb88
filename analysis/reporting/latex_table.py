"""The columns of `table.tex`: those of the report, or those that `latex.columns` names, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.formatting import MISSING
from analysis.reporting.report import Report
from sweep.core.errors import UserError, alternatives


class LatexTable(NamedTuple):
    """Headings by column, rows as text by column, the settings that are selected, and the label of the table."""

    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    label: str | None


def latex_table(report: Report) -> LatexTable:
    """The report's columns, or the chosen ones: those of the report by name, and any measurement or key of the config,
    as the mean over the runs that count.

    Raises:
        UserError: for a column that neither has.
    """
    chosen, label = report.latex.get("columns") or [], report.latex.get("label")
    if not chosen:
        return LatexTable(report.columns, report.table(), label)
    scored = report.study.scored()
    rows = [dict(row) for row in report.table()]
    headings = {}
    for name in chosen:
        if name in report.columns:
            headings[name] = report.columns[name]
            continue
        if name not in scored or not pd.api.types.is_numeric_dtype(scored[name]):
            known = [*report.columns, *(str(column) for column in scored.select_dtypes("number").columns)]
            raise UserError(f"latex.columns: no run has a number {name}; {alternatives(name, known)}")
        means = scored.groupby("setting")[name].mean()
        headings[name] = name.rpartition("/")[2].replace("_", " ")
        for row in rows:
            value = means.get(row["setting"])
            row[name] = MISSING if value is None or pd.isna(value) else f"{value:.4g}"
    return LatexTable(headings, rows, label)
