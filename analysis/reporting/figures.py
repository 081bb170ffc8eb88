"""Which charts a report has: all for which there is something to draw, and why the others are left out."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.charts import cost_curve, learning_curve, memory_parts, memory_prediction, score_by_key, style
from analysis.charts.cost_curve import Axis
from analysis.charts.names import shorten
from analysis.decision.verdict_words import REACHES
from analysis.formatting import percent
from analysis.reporting.report import Report

MAIN = "score_against_memory"
_LONGEST_IN_TITLE = 60  # characters
LOSS, SCORE = "train/loss", "eval/score"  # by step


class Drawn(NamedTuple):
    """Names of the charts (the files are NAME.svg, NAME.png), the main one first; and what is left out, why."""

    names: list[str]
    left_out: list[str]


def draw_all(report: Report, folder: Path, suffixes: list[str]) -> Drawn:
    """Draw into `folder`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing")
        drawn = _draw_all(report, folder, suffixes)
    if any("missing from font" in str(warning.message) for warning in caught):
        drawn.left_out.append("in the PNG files, characters that no font here has (fonts-noto-cjk may); SVG has them")
    return drawn


def _draw_all(report: Report, folder: Path, suffixes: list[str]) -> Drawn:
    drawn = Drawn([], [])
    looks = style.looks([str(variant) for variant in report.settings["variant"]])
    for name, axis, missing in _curves(report):
        marks = cost_curve.data(report.decision, report.study.latest(), axis)
        if not (marks["kind"] == "setting").any():
            drawn.left_out.append(missing)
            continue
        figure = cost_curve.draw(
            marks,
            axis,
            title=_title(report, axis),
            score_label=score_label(report),
            score_threshold=report.decision.score_threshold,
            threshold_label=report.threshold_words.replace("_", " "),
            looks=looks,
            higher_is_better=report.higher_is_better,
            names=report.short_names.names,
            note=_note(report),
        )
        style.save(figure, folder / name, suffixes)
        drawn.names.append(name)
    _scores_by_key(report, folder, suffixes, drawn)
    parts = memory_parts.data(report.settings, report.study.latest())
    if len(parts):
        style.save(memory_parts.draw(parts, memory_parts.label(parts)), folder / "memory_parts", suffixes)
        drawn.names.append("memory_parts")
    else:
        drawn.left_out.append("what the memory is made of: no run has its parts")
    marks = memory_prediction.data(report.study.latest())
    if len(marks):
        style.save(memory_prediction.draw(marks, looks), folder / "memory_prediction", suffixes)
        drawn.names.append("memory_prediction")
    else:
        drawn.left_out.append("memory predicted against measured: no run has both")
    _learning_curves(report, folder, suffixes, looks, drawn)
    for chart in map(importlib.import_module, report.charts):
        name = chart.__name__.rpartition(".")[2]
        numbers = chart.data(report)
        if len(numbers):
            style.save(chart.draw(numbers), folder / name, suffixes)
            drawn.names.append(name)
        else:
            drawn.left_out.append(f"{name}: it has no data")
    return drawn


def score_label(report: Report) -> str:
    lower = "" if report.higher_is_better else " (lower is better)"
    where = " on validation" if report.study.parent_id else ""
    return f"{report.metric.replace('_', ' ')}{where}{lower}"


def _curves(report: Report) -> list[tuple[str, Axis, str]]:
    return [
        (MAIN, Axis("memory", report.memory_metric, f"{report.memory_words} [bytes]"), "memory: no figure"),
        ("score_against_time", Axis("train_seconds", "train_seconds", "training time [s]"),
         "score against time: no run has train_seconds"),
        ("score_against_energy", Axis("energy_joules", "energy_joules", "energy of training [J]"),
         "score against energy: no run has an energy figure (there was no counter to read)"),
        ("score_against_throughput", Axis("tokens_per_second", "tokens_per_second", "tokens per second", True),
         "score against tokens/s: no run has tokens_per_second"),
        ("score_against_trainable", Axis("trainable_params", "trainable_params", "trainable parameters"),
         "score against trainable parameters: no run has trainable_params"),
    ]  # fmt: skip


def _scores_by_key(report: Report, folder: Path, suffixes: list[str], drawn: Drawn) -> None:
    """A chart for each number that the study varies."""
    keys = score_by_key.numeric_keys(report.settings, report.study.keys)
    for key in keys:
        points = score_by_key.data(report.settings, report.study.scored(), key, keys)
        if points.empty:
            continue
        name = key.rpartition(".")[2]
        figure = score_by_key.draw(
            points,
            key=name.replace("_", " "),
            score_label=score_label(report),
            title=f"Score by {name.replace('_', ' ')}",
            threshold=report.decision.score_threshold,
        )
        style.save(figure, folder / f"score_by_{name}", suffixes)
        drawn.names.append(f"score_by_{name}")


def _learning_curves(report: Report, folder: Path, suffixes: list[str], looks: style.Looks, drawn: Drawn) -> None:
    kinds = [
        ("learning_curve", SCORE, score_label(report), False, "the score while training: it was not taken at steps"),
        ("training_loss", LOSS, "training loss", True, "training loss: no run has values by step"),
    ]
    for name, key, label, log, missing in kinds:
        points = learning_curve.data(report.settings, report.study.latest(), report.study.history, key)
        if points.empty:
            drawn.left_out.append(missing)
            continue
        title = "Training loss by step" if key == LOSS else "Score by step"
        points = points.assign(setting=points["setting"].astype(str).map(report.short_names.names))
        figure = learning_curve.draw(points, title=title, value_label=label, looks=looks, log=log)
        style.save(figure, folder / name, suffixes)
        drawn.names.append(name)


def _title(report: Report, axis: Axis) -> str:
    """The conclusion of the chart."""
    if report.nothing_learnt:
        return "No setting learnt anything" if axis.column == "memory" else f"Score against {axis.name}"
    if axis.column == "memory":
        pick = report.narrative.pick
        name = shorten(report.short_names.names[str(pick["setting"])], _LONGEST_IN_TITLE)
        return f"{name} is the smallest that reaches the threshold (chance: {percent(pick['p_right_pick'])})"
    known: pd.DataFrame = report.settings.dropna(subset=[axis.column, "score"])
    good = known[known["meets"].astype(bool)]
    if good.empty:
        return f"Score against {axis.name}"
    at = good[axis.column].idxmax() if axis.more_is_better else good[axis.column].idxmin()
    words = {
        "train_seconds": "is the quickest that reaches the threshold",
        "energy_joules": "needs the least energy of those at the threshold",
        "tokens_per_second": "trains fastest of those at the threshold",
        "trainable_params": "trains the fewest parameters at the threshold",
    }
    return _claim(report, good.loc[at], words[axis.column])


def _claim(report: Report, row: pd.Series, words: str) -> str:
    """The words about a setting, with a doubt if it may miss the threshold."""
    name = shorten(report.short_names.names[str(row["setting"])], _LONGEST_IN_TITLE)
    return f"{name} {words}" + ("" if row["verdict"] == REACHES else ", perhaps by chance")


def _note(report: Report) -> str:
    shared = report.short_names.shared
    notes = [f"Names without what all share: {', '.join(shared)}"] if shared else []
    if report.allowed:
        differing = "; ".join(f"{k}: {', '.join(v)}" for k, v in report.allowed.items())
        notes.append(f"Not the same in all runs: {differing}")
    return "\n".join(notes)
