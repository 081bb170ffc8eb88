"""Score against a cost: every setting with its interval, its replicates, the Pareto front, the threshold, and the
pick."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import formatting
from analysis.charts import labels, style
from analysis.decision.pareto import on_front
from analysis.decision.selection import Decision

CAPACITY = "memory/capacity_bytes"
_MANY = 14  # settings: beyond that, only names that matter must be there
_MOST_NAMES = 30
_MOST_INTERVALS = 40  # settings: beyond that, only those that matter have their intervals and replicates
_LOG_RANGE = 30.0  # largest cost over smallest: beyond that, a linear axis would hide the small ones
_ROOM = 0.14  # of the axes' height, around the points
_LEAST_RANGE = 0.05  # of the cost: less would magnify differences that mean nothing


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

    Settings that have nothing to be drawn at are left out; the table lists them.
    """
    settings = decision.settings
    cost = settings[axis.column].astype(float)
    front = on_front(-cost if axis.more_is_better else cost, settings["score"], decision.rule.higher_is_better)
    drawn = settings.assign(kind="setting", cost=cost, front=front)
    replicates = _of_runs(runs, "ok", axis).assign(kind="run")
    pruned = _of_runs(runs, "pruned", axis).assign(kind="pruned")
    columns = ["kind", "setting", "variant", "cost", "score", "score_halfwidth", "front", "selected", "best", "meets"]
    parts = [part.reindex(columns=columns) for part in (drawn, replicates, pruned)]
    marks = pd.concat([part for part in parts if len(part)], ignore_index=True)
    marks = marks[marks["cost"].notna() & marks["score"].notna()]
    if axis.column == "memory":
        marks = pd.concat([marks, _out_of_memory(settings, runs).reindex(columns=columns)], ignore_index=True)
    return marks


def _of_runs(runs: pd.DataFrame, outcome: str, axis: Axis) -> pd.DataFrame:
    some = runs[runs["outcome"] == outcome].drop_duplicates(["setting", "seed"], keep="last")
    return some.assign(cost=some[axis.of_run].astype(float) if axis.of_run in some else np.nan)


def _out_of_memory(settings: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    without = settings.loc[settings["score"].isna(), "setting"]
    failed = runs[(runs["outcome"] == "oom") & runs["setting"].isin(without)].drop_duplicates("setting", keep="last")
    if CAPACITY not in failed:
        return failed.head(0)
    return failed.assign(kind="oom", cost=failed[CAPACITY].astype(float), score=np.nan).dropna(subset=["cost"])


def draw(
    marks: pd.DataFrame,
    axis: Axis,
    *,
    title: str,
    score_label: str,
    score_threshold: float,
    threshold_label: str,
    looks: style.Looks,
    note: str = "",
) -> Figure:
    """`note` stands small below the axes: what was allowed to differ."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure()
        scale, unit = formatting.scale(axis.label, float(marks["cost"].max()))
        marks = _thinned(marks.assign(cost=marks["cost"] / scale))
        by_kind = {kind: marks[marks["kind"] == kind] for kind in ("setting", "run", "pruned", "oom")}
        settings = by_kind["setting"]
        if settings["cost"].min() > 0 and settings["cost"].max() > _LOG_RANGE * settings["cost"].min():
            axes.set_xscale("log")
        steps = _front_line(settings, axis.more_is_better)
        axes.plot(*zip(*steps, strict=True), color=style.FAINT, linewidth=1.2, zorder=1)
        axes.axhline(score_threshold, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        _draw_runs(axes, by_kind["run"], looks)
        _draw_settings(axes, settings, looks)
        below = _limits(axes, marks, score_threshold)
        _draw_below(axes, below, looks)
        _draw_pruned(axes, by_kind["pruned"], looks)
        _draw_oom(axes, by_kind["oom"], looks)
        left_out = f"\n({len(below)} settings score outside of the picture)" if len(below) else ""
        axes.set_xlabel(axis.label.replace("[bytes]", f"[{unit}]") + left_out)
        style.plain_numbers(axes.xaxis)
        axes.set_ylabel(score_label)
        style.set_title(axes, title)
        if note:
            axes.annotate(note, (0, -0.2), xycoords="axes fraction", fontsize=7, color=style.FAINT, va="top")
        threshold_name = _name_the_threshold(axes, score_threshold, threshold_label, marks.dropna(subset=["score"]))
        left, right = axes.get_xlim()
        marks_drawn = [(x, y, 2.0) for x, y in zip(by_kind["run"]["cost"], by_kind["run"]["score"], strict=True)]
        names = [
            *_names(axes, settings, looks),
            *_edge_names(axes, by_kind["oom"], looks, "out of memory"),
            *_edge_names(axes, by_kind["pruned"].drop_duplicates("setting"), looks, "stopped"),
        ]
        labels.place(
            axes,
            names,
            marks=marks_drawn,
            lines=[steps, [(left, score_threshold), (right, score_threshold)]],
            texts=[threshold_name],
        )
    return figure


def _thinned(marks: pd.DataFrame) -> pd.DataFrame:
    settings = marks[marks["kind"] == "setting"]
    if len(settings) <= _MOST_INTERVALS:
        return marks
    kept = settings.loc[settings[["selected", "best", "front"]].astype(bool).any(axis=1), "setting"]
    aside = ~marks["setting"].isin(kept)
    marks = marks[~(aside & (marks["kind"] == "run"))]
    return marks.assign(score_halfwidth=marks["score_halfwidth"].where(marks["setting"].isin(kept)))


def _by_variant(marks: pd.DataFrame, looks: style.Looks) -> list[tuple[pd.DataFrame, str, str]]:
    """The marks of each variant, with its colour and marker."""
    return [(group, *looks[str(variant)]) for variant, group in marks.groupby("variant", sort=False)]


def _draw_runs(axes: Axes, runs: pd.DataFrame, looks: style.Looks) -> None:
    for group, colour, _ in _by_variant(runs, looks):
        axes.plot(group["cost"], group["score"], ".", color=colour, markersize=6, alpha=0.5, mew=0, zorder=2)


def _draw_pruned(axes: Axes, pruned: pd.DataFrame, looks: style.Looks) -> None:
    """Hollow; at the edge where they were stopped far from it."""
    low, high = axes.get_ylim()
    for group, colour, marker in _by_variant(pruned, looks):
        axes.plot(group["cost"], group["score"].clip(low, high), marker, mfc="none", mec=colour, markersize=6, mew=1.1,
                  zorder=2, clip_on=False)  # fmt: skip


def _draw_settings(axes: Axes, settings: pd.DataFrame, looks: style.Looks) -> None:
    for group, colour, marker in _by_variant(settings, looks):
        known = group[group["score_halfwidth"].notna()]
        axes.errorbar(known["cost"], known["score"], known["score_halfwidth"], fmt="none", ecolor=colour, alpha=0.45,
                      elinewidth=1.3, zorder=2)  # fmt: skip
        axes.plot(group["cost"], group["score"], marker, color=colour, markersize=8, mec=style.PAPER, mew=0.8, zorder=3)
    chosen = settings[settings["selected"].astype(bool)]
    axes.plot(chosen["cost"], chosen["score"], "o", mfc="none", mec=style.INK, markersize=15, mew=1.3, zorder=4)


def _draw_oom(axes: Axes, oom: pd.DataFrame, looks: style.Looks) -> None:
    """At the bottom edge: they have no score."""
    low, _ = axes.get_ylim()
    for row in oom.itertuples():
        axes.plot(row.cost, low, "x", color=looks[row.variant][0], markersize=8, mew=2, clip_on=False, zorder=5)


def _limits(axes: Axes, marks: pd.DataFrame, score_threshold: float) -> pd.DataFrame:
    """Room around the points; returns the settings that are left out of the picture.

    An interval may leave it: two seeds can have one as wide as the whole scale. Of many settings, those that score
    worse than any on the front leave it, too, since they would press the others together.
    """
    settings, scores = marks[marks["kind"] == "setting"], marks.loc[marks["kind"] != "pruned", "score"].dropna()
    if len(settings) > _MANY:
        front = settings.loc[settings["front"].astype(bool), "score"]
        reach = max(front.max() - front.min(), 3 * abs(front.max() - score_threshold))
        lowest, highest = front.min() - reach / 3, front.max() + reach / 3
        scores = scores[scores.between(lowest, highest)]
    low, high = min(scores.min(), score_threshold), max(scores.max(), score_threshold)
    room = (high - low or abs(high) or 1.0) * _ROOM
    axes.set_ylim(low - room, high + room)
    outside = settings[~settings["score"].between(low - room, high + room)]
    if axes.get_xscale() == "log":
        axes.margins(x=0.12)
        return outside
    least, most = marks["cost"].min(), marks["cost"].max()
    room = (most - least) * (_ROOM + 0.02)
    room = max(room, (_LEAST_RANGE * most - (most - least)) / 2)
    axes.set_xlim(max(0.0, least - room), most + (room or 1.0))
    return outside


def _draw_below(axes: Axes, outside: pd.DataFrame, looks: style.Looks) -> None:
    """A tick at the edge for each setting that is left out of the picture."""
    low, high = axes.get_ylim()
    for group, colour, _ in _by_variant(outside, looks):
        edges = np.where(group["score"] < low, low, high)
        axes.plot(group["cost"], edges, "|", color=colour, markersize=9, mew=1.6, clip_on=False, zorder=5)


def _names(axes: Axes, settings: pd.DataFrame, looks: style.Looks) -> list[labels.Label]:
    settings = settings[settings["score"].between(*sorted(axes.get_ylim()))]
    ordered = settings.assign(
        rank=settings["selected"].astype(int) * 4 + settings["best"].astype(int) * 2 + settings["front"].astype(int)
    ).sort_values(["rank", "score"], ascending=False)
    ordered = ordered.head(max(_MOST_NAMES, int((ordered["rank"] > 0).sum())))
    return [
        labels.Label(
            row.cost, row.score, str(row.setting), looks[row.variant][0], 8.0 if row.selected else 4.5,
            needed=len(ordered) <= _MANY or bool(row.selected or row.best or row.front),
        )
        for row in ordered.itertuples()
    ]  # fmt: skip


def _edge_names(axes: Axes, some: pd.DataFrame, looks: style.Looks, what: str) -> list[labels.Label]:
    """Of settings that are drawn at the lower edge, or near it, for the way they ended."""
    low, high = axes.get_ylim()
    heights = some["score"].fillna(low).clip(low, high)
    return [
        labels.Label(row.cost, y, f"{what}: {row.setting}", looks[row.variant][0], 5.0, needed=len(some) <= 3)
        for row, y in zip(some.itertuples(), heights, strict=True)
    ]


def _front_line(settings: pd.DataFrame, more_is_better: bool) -> list[tuple[float, float]]:
    """The edge of the region that the front dominates: level until the next setting is affordable, then up."""
    front = settings[settings["front"].astype(bool)].sort_values("cost", ascending=not more_is_better)
    points = list(dict.fromkeys(zip(front["cost"], front["score"], strict=True)))
    corners = points[:1]
    for cost, score in points[1:]:
        corners += [(cost, corners[-1][1]), (cost, score)]
    return corners


def _name_the_threshold(axes: Axes, score_threshold: float, label: str, marks: pd.DataFrame) -> Text:
    """On the dashed line, above or below, at the end where fewest marks are near."""
    to_axes = axes.transData - axes.transAxes
    points = to_axes.transform(marks[["cost", "score"]].to_numpy(float))
    height = to_axes.transform((marks["cost"].iloc[0], score_threshold))[1]
    weight = np.where(marks["kind"] == "run", 1, 4)
    choices = []
    for at_left in (False, True):
        aside = points[:, 0] < 0.42 if at_left else points[:, 0] > 0.58
        for above in (True, False):
            rise = (points[:, 1] - height) * (1 if above else -1)
            choices.append((int((weight * (aside & (rise > -0.03) & (rise < 0.11))).sum()), not above, at_left))
    _, below, at_left = min(choices)
    return axes.annotate(
        label,
        (0.01 if at_left else 0.99, score_threshold),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3 if below else 3),
        textcoords="offset points",
        ha="left" if at_left else "right",
        va="top" if below else "bottom",
        fontsize=7.5,
        color=style.INK,
        bbox=labels.BACKGROUND,
    )
