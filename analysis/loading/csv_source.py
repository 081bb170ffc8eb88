"""A CSV file of runs → the same table as for a study."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import pandas as pd

from analysis.loading import csv_table
from analysis.loading.csv_table import cell_faults
from analysis.loading.study import DIRECTIONS, Study
from sweep.core.errors import UserError, alternatives
from sweep.core.measurements import ENERGY_JOULES, SCORE, TOKENS_PER_SECOND, TRAIN_SECONDS, TRAINABLE_PARAMS
from sweep.core.record import Outcome

REQUIRED = ("setting", SCORE)
NUMBERS = (SCORE, TRAIN_SECONDS, ENERGY_JOULES, TOKENS_PER_SECOND, TRAINABLE_PARAMS, "n_examples", "seed")
TEXTS = ("setting", "variant", "outcome", "reason", "conditions", "conditions_hash", "metric", "direction")
_RUNNING = "running"  # the outcome, in runs.csv of a report, of a run that had not ended
_LARGEST = 2.0**63  # of a count, of bytes, of seconds
_AMOUNTS = (TRAIN_SECONDS, ENERGY_JOULES, TOKENS_PER_SECOND, TRAINABLE_PARAMS)
_PERCENT_FROM = 20  # the same scores in percent are 100 times as large; other settings may be worse
_SMALLEST_BYTES = 2**20  # of a fine-tuning
_LOWER_IS_BETTER = re.compile(r"(^|[^a-z])(loss|perplexity|ppl|nll|rmse|mse|mae|wer|cer|ter|error)([^a-z]|$)")
_PLAIN = "write digits and a decimal point, without a unit or a percent sign"


def read(path: Path, memory_metric: str, direction: str | None = None) -> Study:
    """Read runs, one per row. docs/reports-and-mlflow.md lists the columns.

    Args:
        path: The file.
        memory_metric: The column of memory figures, in bytes. Like the score, only rows with the outcome `ok` need it.
        direction: maximize or minimize, whatever the file states; None is the file's, else maximize with a note.

    Raises:
        UserError: for a file without such a table. The message names columns, rows and values.
    """
    table = csv_table.read(path, (*REQUIRED, memory_metric))
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
        text = table[name]
        if name == memory_metric:
            runs[name] = csv_table.numbers(text, f"bytes; {_PLAIN} (22 GiB is 23622320128)", faults)
        elif name in NUMBERS:
            runs[name] = csv_table.numbers(text, _PLAIN, faults)
        elif name in TEXTS:
            runs[name] = text
        elif name != "run_id":
            number = pd.to_numeric(text.where(text != ""), errors="coerce")
            runs[name] = number if (number.notna() | (text == "")).all() else text
    runs["outcome"] = _outcomes(runs, faults)
    runs["running"] = runs["outcome"] == _RUNNING
    _require(runs, memory_metric, faults)
    runs["direction"], notes = _direction(runs, direction, faults)
    if faults:
        raise UserError(f"{path} has rows that cannot be read:\n" + "\n".join(f"  {fault}" for fault in faults))
    return _study(path, runs.reset_index(drop=True), [*notes, *_doubts(runs, memory_metric)])


def _outcomes(runs: pd.DataFrame, faults: list[str]) -> pd.Series:
    if "outcome" not in runs:
        return pd.Series("ok", index=runs.index)
    outcome = runs["outcome"].str.lower().replace("", "ok").rename("outcome")
    known = [*Outcome, _RUNNING]
    faults += cell_faults(outcome, ~outcome.isin(known), f"is not an outcome; there is: {', '.join(known)}")
    return outcome


def _require(runs: pd.DataFrame, memory_metric: str, faults: list[str]) -> None:
    memory = runs[memory_metric]
    faults += cell_faults(runs["setting"], runs["setting"] == "", "is empty")
    faults += cell_faults(memory, (memory <= 0) | (memory >= _LARGEST), "must be above 0 and below 2^63, in bytes")
    if "variant" in runs:
        for setting, own in runs[runs["variant"] != ""].groupby("setting")["variant"]:
            if own.nunique() > 1:
                faults.append(f"setting {setting} has the variants {' and '.join(sorted(own.unique()))}; it has one")
    for name in filter(runs.columns.__contains__, _AMOUNTS):
        amount = runs[name]
        faults += cell_faults(amount, (amount < 0) | (amount >= _LARGEST), "must be at least 0 and below 2^63")
    for name, least in (("seed", 0), ("n_examples", 1)):
        if name in runs:
            whole = (runs[name] % 1 == 0) & (runs[name] >= least) & (runs[name] < _LARGEST)
            rule = f"must be a whole number of at least {least} and below 2^63"
            faults += cell_faults(runs[name], ~(whole | runs[name].isna()), rule)


def _direction(runs: pd.DataFrame, asked: str | None, faults: list[str]) -> tuple[str | None, list[str]]:
    """The direction of the score, None if it must be given, and notes on it."""
    stated = runs["direction"].str.lower() if "direction" in runs else pd.Series("", index=runs.index)
    faults += cell_faults(
        runs.get("direction", stated), ~stated.isin(["", *DIRECTIONS]), "must be maximize or minimize"
    )
    found = sorted(set(stated) - {""})
    if asked is not None:
        others = [one for one in found if one != asked]
        return asked, [f"direction={asked} was given; the file states {', '.join(others)}."] if others else []
    if len(found) > 1:
        faults.append(f"direction: the rows state {' and '.join(found)}, and there is one ranking of all rows")
    if found:
        return found[0], []
    if "metric" in runs and any(_LOWER_IS_BETTER.search(name.lower()) for name in runs["metric"]):
        return None, []
    note = "The file does not give a direction: higher scores count as better (if not, direction=minimize)."
    return "maximize", [note]


def _doubts(runs: pd.DataFrame, memory_metric: str) -> list[str]:
    """Columns that look as if they had another unit, and columns that are not used for that reason."""
    notes = []
    ok = runs[runs["outcome"] == "ok"]
    largest = ok[memory_metric].max()
    if largest < _SMALLEST_BYTES:
        notes.append(
            f"{memory_metric} is at most {largest:g} bytes, less than any fine-tuning needs. The column is in bytes: "
            "if these are GiB, multiply by 1073741824."
        )
    scores = ok[SCORE].dropna()
    shares, others = scores[(scores > 0) & (scores <= 1)], scores[(scores > 1) & (scores <= 100)]
    if len(shares) and len(others) and others.min() >= _PERCENT_FROM * shares.max():
        notes.append(
            f"The column has scores from {shares.min():g} to {shares.max():g} and from {others.min():g} to "
            f"{others.max():g}: if some rows are in percent, divide them by 100."
        )
    if "n_examples" in runs:
        if not ok[SCORE].dropna().between(0, 1).all():
            notes.append(
                f"The column n_examples is not used: it needs scores from 0 to 1, and these reach {ok[SCORE].max():g}. "
                "Divide percent by 100."
            )
        elif ok["n_examples"].isna().any():
            notes.append("The column n_examples is not used: some rows have none.")
    return notes


def _study(path: Path, runs: pd.DataFrame, notes: list[str]) -> Study:
    runs["seed"] = _seeds(runs)
    for name, default in (("reason", ""), ("conditions", ""), ("metric", "score"), ("variant", runs["setting"])):
        runs[name] = runs[name].where(runs[name] != "", default) if name in runs else default
    return Study(
        name=path.stem,
        parent_id=None,
        conditions={"source": path.name},
        command="",
        runs=runs.assign(
            conditions_hash=runs["conditions"].where(runs["conditions"] != "", runs.get("conditions_hash", "")),
            conditions=[json.dumps({"conditions": text}) for text in runs["conditions"]],
        ),
        notes=tuple(notes),
    )


def _seeds(runs: pd.DataFrame) -> pd.Series:
    """The seeds of the file. A row without one gets the smallest number that its setting has not."""
    given = runs["seed"] if "seed" in runs else pd.Series(float("nan"), index=runs.index)
    taken = {setting: set(own.dropna().astype(int)) for setting, own in given.groupby(runs["setting"])}
    seeds = []
    for setting, seed in zip(runs["setting"], given, strict=True):
        own = taken[setting]
        seeds.append(next(n for n in itertools.count() if n not in own) if math.isnan(seed) else int(seed))
        own.add(seeds[-1])
    return pd.Series(seeds, index=runs.index)
