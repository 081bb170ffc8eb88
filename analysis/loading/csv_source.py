"""A CSV file of runs → the same table as for a study."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.loading.study import Study
from sweep.core.errors import UserError, alternatives
from sweep.core.measurements import ENERGY_JOULES, SCORE, TOKENS_PER_SECOND, TRAIN_SECONDS, TRAINABLE_PARAMS
from sweep.core.record import Outcome

REQUIRED = ("setting", SCORE)
NUMBERS = (SCORE, TRAIN_SECONDS, ENERGY_JOULES, TOKENS_PER_SECOND, TRAINABLE_PARAMS, "n_examples")
TEXTS = ("setting", "variant", "outcome", "reason", "conditions", "metric")
_SHOWN = 5  # faults of one kind that a message lists


def read(path: Path, memory_metric: str, direction: str | None = None) -> Study:
    """Read runs, one per row. docs/reports-and-mlflow.md lists the columns.

    Args:
        path: The file.
        memory_metric: The column of memory figures, in bytes. Like the score, only rows with the outcome `ok` need it.
        direction: maximize or minimize; None is maximize, with a note.

    Raises:
        UserError: for a file without such a table. The message names columns, rows and values.
    """
    table = _table(path)
    missing = [name for name in (*REQUIRED, memory_metric) if name not in table]
    if missing:
        hints = "; ".join(f"{name} ({alternatives(name, list(table.columns))})" for name in missing)
        other = "; memory_metric= names another column of memory" if memory_metric in missing else ""
        raise UserError(f"{path} lacks the column{'s' if len(missing) > 1 else ''} {hints}{other}")
    if table.empty:
        raise UserError(f"{path} has a header but no row")
    faults: list[str] = []
    runs = pd.DataFrame({"run_id": [f"row {line}" for line in table.index]}, index=table.index)
    for name in table.columns:
        text = table[name].str.strip()
        if name in (*NUMBERS, memory_metric, "seed"):
            runs[name] = _numbers(text, faults)
        elif name in TEXTS:
            runs[name] = text
        else:
            number = pd.to_numeric(text.where(text != ""), errors="coerce")
            runs[name] = number if (number.notna() | (text == "")).all() else text
    runs["outcome"] = _outcomes(runs, faults)
    _require(runs, memory_metric, faults)
    if faults:
        raise UserError(f"{path} has rows that cannot be read:\n" + "\n".join(f"  {fault}" for fault in faults))
    return _study(path, runs.reset_index(drop=True), direction)


def _table(path: Path) -> pd.DataFrame:
    """All cells as text, indexed by the line of the file, without empty lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} could not be read as CSV: {error}") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise UserError(f"{path} is empty: it needs a header ({', '.join(REQUIRED)}, …) and rows")
    (_, header), *body = rows
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{path} has more than one column {', '.join(map(repr, twice))}")
    if wrong := [
        f"line {line} has {len(row)} cells, the header {len(header)}" for line, row in body if len(row) != len(header)
    ]:
        raise UserError(f"{path} has rows that cannot be read:\n" + "\n".join(f"  {fault}" for fault in wrong[:_SHOWN]))
    return pd.DataFrame([row for _, row in body], columns=header, index=[line for line, _ in body], dtype=object)


def _numbers(text: pd.Series, faults: list[str]) -> pd.Series:
    """Empty cells and "nan" are missing."""
    given = text.where(~text.str.lower().isin(["", "nan", "na", "null", "none"]))
    number = pd.to_numeric(given, errors="coerce").replace([np.inf, -np.inf], np.nan)
    faults += _faults(given, given.notna() & number.isna(), "is not a finite number")
    return number


def _outcomes(runs: pd.DataFrame, faults: list[str]) -> pd.Series:
    if "outcome" not in runs:
        return pd.Series("ok", index=runs.index)
    outcome = runs["outcome"].str.lower().replace("", "ok").rename("outcome")
    faults += _faults(outcome, ~outcome.isin(list(Outcome)), f"is not an outcome; there is: {', '.join(Outcome)}")
    return outcome


def _require(runs: pd.DataFrame, memory_metric: str, faults: list[str]) -> None:
    memory = runs[memory_metric]
    faults += _faults(runs["setting"], runs["setting"] == "", "is empty")
    faults += _faults(memory, memory <= 0, "must be above 0, in bytes")
    for name, least in (("seed", 0), ("n_examples", 1)):
        if name in runs:
            whole = runs[name].isna() | ((runs[name] % 1 == 0) & (runs[name] >= least))
            faults += _faults(runs[name], ~whole, f"must be a whole number of at least {least}")


def _faults(column: pd.Series, wrong: pd.Series, message: str) -> list[str]:
    """A line for each of the first wrong cells, and how many more there are."""
    cells = {line: column[line] for line in column.index[wrong][:_SHOWN]}
    texts = {line: repr(cell) if isinstance(cell, str) else f"{cell:g}" for line, cell in cells.items()}
    shown = [f"line {line}: {column.name} = {text} {message}" for line, text in texts.items()]
    rest = int(wrong.sum()) - _SHOWN
    return [*shown, f"and {rest} more in {column.name}"] if rest > 0 else shown


def _study(path: Path, runs: pd.DataFrame, direction: str | None) -> Study:
    numbered = runs.groupby("setting").cumcount()
    notes = []
    runs["seed"] = (runs["seed"].fillna(numbered) if "seed" in runs else numbered).astype(int)
    for name, default in (("reason", ""), ("conditions", ""), ("metric", "score"), ("variant", runs["setting"])):
        runs[name] = runs[name].where(runs[name] != "", default) if name in runs else default
    if direction is None:
        notes.append("The file does not give a direction: higher scores count as better (if not, direction=minimize).")
    return Study(
        name=path.stem,
        parent_id=None,
        conditions={"source": path.name},
        command="",
        runs=runs.assign(
            running=False,
            direction=direction or "maximize",
            conditions_hash=runs["conditions"],
            conditions=[json.dumps({"conditions": text}) for text in runs["conditions"]],
        ),
        notes=tuple(notes),
    )
