"""What failed, why, and what to try: the runs' own suggestions, else those for the outcome in general."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sweep.core.errors import first_line
from sweep.diagnostics.mitigations import GENERAL

_ADVICE = {
    **{outcome.value: f"Try, in this order: {what}." for outcome, what in GENERAL.items()},
    "failed": "Read the run's traceback.txt in MLflow, fix the cause, and repeat the study's command.",
    "killed": "Repeat the study's command: the study continues where it stopped.",
    "pruned": "Nothing: settings that need no more memory scored clearly better at the same step.",
}


class Failure(NamedTuple):
    """Runs of one setting that ended in the same way."""

    setting: str
    outcome: str
    seeds: str
    reason: str


def failures(runs: pd.DataFrame) -> list[Failure]:
    """The runs that count and did not end well, by setting and outcome."""
    bad = runs[(runs["outcome"] != "ok") & ~runs["running"].astype(bool)]
    found = []
    for (setting, outcome), group in bad.groupby(["setting", "outcome"], sort=False):
        seeds = ", ".join(str(seed) for seed in sorted(group["seed"]))
        reasons = list(dict.fromkeys(first_line(reason) for reason in group["reason"]))
        reason = reasons[0] + (f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else "")
        found.append(Failure(str(setting), str(outcome), seeds, reason))
    return found


def advice(found: list[Failure], runs: pd.DataFrame) -> dict[str, str]:
    """outcome → what to do about it, for the outcomes that occur.

    Runs that hold suggestions for their own config (the fact `suggestions`) replace the general list. A change of any
    key but the variant is a change of the conditions, and so makes another study.
    """
    advised = {}
    for outcome, general in _ADVICE.items():
        if any(failure.outcome == outcome for failure in found):
            own = _own_suggestions(runs[runs["outcome"] == outcome])
            text = "Each change alone: " + " ".join(own) if own else general
            other_study = " Changes of anything but the variant make another study." if outcome in GENERAL else ""
            advised[outcome] = text + other_study
    return advised


def _own_suggestions(runs: pd.DataFrame) -> list[str]:
    """The suggestions of each setting's first run that has any; settings with the same ones share a line."""
    if "suggestions" not in runs:
        return []
    first = runs.dropna(subset=["suggestions"]).drop_duplicates("setting")
    return [
        f"{', '.join(map(str, group))}: {'; '.join(text.splitlines())}."
        for text, group in first.groupby("suggestions", sort=False)["setting"]
    ]


def warnings_of(runs: pd.DataFrame) -> list[str]:
    """The warnings of the runs (their fact `warnings`): one line for each setting and kind of warning, in the text of
    the first run that has it."""
    return [
        f"{setting} {lines[0]}." + (f" So in {len(lines)} of its runs." if len(lines) > 1 else "")
        for (setting, _), lines in _by_kind(runs).items()
    ]


def kinds_of_warnings(runs: pd.DataFrame) -> dict[str, list[str]]:
    """setting → its warnings in short: "the loss did not move (2 of 3 runs)"."""
    found: dict[str, list[str]] = {}
    counts = runs["setting"].astype(str).value_counts()
    for (setting, _), lines in _by_kind(runs).items():
        short = lines[0].partition(") ")[2].partition(":")[0]
        found.setdefault(setting, []).append(f"{short} ({len(lines)} of {counts[setting]} runs)")
    return found


def _by_kind(runs: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """(setting, kind of warning) → the lines of its runs, each with its seed."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    if "warnings" not in runs:
        return by_kind
    for setting, seed, warnings in zip(runs["setting"], runs["seed"], runs["warnings"], strict=True):
        for line in str(warnings).splitlines() if isinstance(warnings, str) else []:
            kind = line.partition(":")[0].partition(",")[0]
            by_kind.setdefault((str(setting), kind), []).append(f"(seed {seed}) {line}")
    return by_kind
