"""Score against a cost: every setting with its chance and interval, the Pareto front, the threshold, and the pick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import formatting
from analysis.charts import cost_marks, cost_view, labels, style
from analysis.charts.cost_view import MANY
from analysis.decision.pareto import on_front
from analysis.decision.selection import Decision

CAPACITY = "memory/capacity_bytes"
_LOG_RANGE = 30.0  # largest cost over smallest: beyond that, a linear axis would hide the small ones


class Axis(NamedTuple):
    """What stands on the horizontal axis."""

    column: str  # of the settings
    of_run: str  # its name in the runs
    label: str  # ends in the unit; "[bytes]" is shown as MiB or GiB
    more_is_better: bool = False

    @property
    def name(self) -> str:
        return self.label.partition(" [")[0]


def data(decision: Decision, runs: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """One row per mark; `kind` is "setting", "run" (an `ok` replicate), "pruned" (a run that was stopped, at the score
    it had) or "oom" (a setting that only ran out of memory, at the capacity that it exceeded, without a score).

    Settings that have nothing to be drawn at are left out; the table lists them. Of many settings, only those that
    matter (on the front, selected, best) have their interval and replicates.
    """
    settings = decision.settings
    cost = settings[axis.column].astype(float)
    front = on_front(-cost if axis.more_is_better else cost, settings["score"], decision.rule.higher_is_better)
    drawn = settings.assign(kind="setting", cost=cost, front=front)
    replicates = _of_runs(runs, "ok", axis).assign(kind="run")
    pruned = _of_runs(runs, "pruned", axis).assign(kind="pruned")
    columns = ["kind", "setting", "variant", "cost", "score", "score_low", "score_high", "verdict",
               "p_reaches_bar", "front", "selected", "best"]  # fmt: skip
    parts = [part.reindex(columns=columns) for part in (drawn, replicates, pruned)]
    marks = pd.concat([part for part in parts if len(part)], ignore_index=True)
    marks = marks[marks["cost"].notna() & marks["score"].notna()]
    if axis.column == "memory":
        marks = pd.concat([marks, _out_of_memory(settings, runs).reindex(columns=columns)], ignore_index=True)
    return _thinned(marks)


def _of_runs(runs: pd.DataFrame, outcome: str, axis: Axis) -> pd.DataFrame:
    some = runs[runs["outcome"] == outcome].drop_duplicates(["setting", "seed"], keep="last")
    return some.assign(cost=some[axis.of_run].astype(float) if axis.of_run in some else np.nan)


def _out_of_memory(settings: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    without = settings.loc[settings["score"].isna(), "setting"]
    failed = runs[(runs["outcome"] == "oom") & runs["setting"].isin(without)].drop_duplicates("setting", keep="last")
    if CAPACITY not in failed:
        return failed.head(0)
    return failed.assign(kind="oom", cost=failed[CAPACITY].astype(float), score=np.nan).dropna(subset=["cost"])


def _thinned(marks: pd.DataFrame) -> pd.DataFrame:
    settings = marks[marks["kind"] == "setting"]
    if len(settings) <= MANY:
        return marks
    kept = settings.loc[settings[["selected", "best", "front"]].astype(bool).any(axis=1), "setting"]
    aside = ~marks["setting"].isin(kept)
    marks = marks[~(aside & (marks["kind"] == "run"))]
    ends = {column: marks[column].where(marks["setting"].isin(kept)) for column in ("score_low", "score_high")}
    return marks.assign(**ends)


def draw(
    marks: pd.DataFrame,
    axis: Axis,
    *,
    title: str,
    score_label: str,
    score_threshold: float,
    threshold_label: str,
    looks: style.Looks,
    higher_is_better: bool = True,
    names: Mapping[str, str] | None = None,
    note: str = "",
) -> Figure:
    """`names` are shorter names of settings; `note` stands small below the axes: what was allowed to differ."""
    settings = marks[marks["kind"] == "setting"]
    many = len(settings) > MANY
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure(4.2, 6.2) if many else style.new_figure()
        scale, unit = formatting.scale(axis.label, float(marks["cost"].max()))
        marks = marks.assign(cost=marks["cost"] / scale)
        settings = marks[marks["kind"] == "setting"]
        log = settings["cost"].min() > 0 and settings["cost"].max() > _LOG_RANGE * settings["cost"].min()
        shown = cost_view.view(marks, score_threshold, higher_is_better, axis.more_is_better, log)
        if log:
            axes.set_xscale("log")
        axes.set_xlim(*shown.cost)
        axes.set_ylim(*shown.score)
        steps = _front_line(settings, axis.more_is_better)
        axes.plot(*zip(*steps, strict=True), color=style.FAINT, linewidth=1.2, zorder=1)
        axes.axhline(score_threshold, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        inside, outside = settings[shown.inside], settings[~shown.inside]
        runs = marks[(marks["kind"] == "run") & marks["setting"].isin(inside["setting"])]
        ended = marks[marks["kind"].isin(["oom", "pruned"])]
        pen = cost_marks.Pen(axes, looks, names or {}, axis.name, unit)
        pen.draw_runs(runs)
        pen.draw_settings(inside)
        pen.draw_at_edge(outside)
        pen.draw_ended(ended)
        axes.set_xlabel(axis.label.replace("[bytes]", f"[{unit}]"))
        style.plain_numbers(axes.xaxis)
        axes.set_ylabel(score_label)
        style.set_title(axes, title)
        cost_marks.write_below(axes, [*cost_marks.key(settings, ended, len(outside)), note])
        near = pd.concat([inside, runs])
        threshold_name = cost_marks.name_the_threshold(axes, score_threshold, threshold_label, near)
        edges = axes.get_xlim()
        labels.place(
            axes,
            [*pen.labels_of(inside, MANY), *pen.labels_of_ended(ended)],
            marks=[*_points(inside, 4.5), *_points(runs, 2.0)],
            lines=[steps, [(edge, score_threshold) for edge in edges]],
            texts=[threshold_name],
        )
    return figure


def _points(marks: pd.DataFrame, radius: float) -> list[tuple[float, float, float]]:
    """What a name must not cover."""
    return [(x, y, radius) for x, y in zip(marks["cost"], marks["score"], strict=True)]


def _front_line(settings: pd.DataFrame, more_is_better: bool) -> list[tuple[float, float]]:
    """The edge of the region that the front dominates: level until the next setting is affordable, then up."""
    front = settings[settings["front"].astype(bool)].sort_values("cost", ascending=not more_is_better)
    ordered = list(dict.fromkeys(zip(front["cost"], front["score"], strict=True)))
    corners = ordered[:1]
    for cost, score in ordered[1:]:
        corners += [(cost, corners[-1][1]), (cost, score)]
    return corners
