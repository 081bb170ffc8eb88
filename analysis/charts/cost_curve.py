"""Score against a cost: every setting, its replicates, the Pareto front, the bar to reach, and the pick."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import units
from analysis.charts import style
from analysis.decide import Decision
from analysis.pareto import on_front


def data(decision: Decision, runs: pd.DataFrame, cost: str, cost_of_run: str, higher_is_better: bool) -> pd.DataFrame:
    """One row per mark: settings (`kind` "setting") with their interval, and their `ok` runs ("run").

    `cost` is a column of the settings, `cost_of_run` the same quantity in the runs. Settings without an `ok` run have
    nothing to be drawn at and are left out; the table lists them.
    """
    settings = decision.settings.assign(
        kind="setting",
        cost=decision.settings[cost],
        front=on_front(decision.settings[cost], decision.settings["score"], higher_is_better),
    )
    ok = runs[runs["outcome"] == "ok"].drop_duplicates(["setting", "seed"], keep="last")
    replicates = ok.assign(kind="run", cost=ok[cost_of_run] if cost_of_run in ok else float("nan"))
    columns = ["kind", "setting", "variant", "cost", "score", "score_halfwidth", "front", "pick", "meets"]
    marks = pd.concat([settings.reindex(columns=columns), replicates.reindex(columns=columns)], ignore_index=True)
    return marks[marks["cost"].notna() & marks["score"].notna()]


def draw(marks: pd.DataFrame, *, title: str, cost_label: str, score_label: str, bar: float, bar_label: str) -> Figure:
    """`cost_label` carries the unit: "bytes" is shown as MiB or GiB, "s" as seconds."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure()
        settings = marks[marks["kind"] == "setting"]
        looks = style.looks(settings["variant"].tolist())
        scale, unit = units.scale(cost_label, float(settings["cost"].max()))

        front = settings[settings["front"].astype(bool)].sort_values("cost")
        steps = _staircase(list(zip(front["cost"] / scale, front["score"], strict=True)))
        axes.plot(*zip(*steps, strict=True), color=style.FAINT, linewidth=1.2, zorder=1)
        axes.axhline(bar, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)

        runs = marks[marks["kind"] == "run"]
        for row in runs.itertuples():
            colour = looks[row.variant][0]
            axes.plot(row.cost / scale, row.score, ".", color=colour, markersize=6, alpha=0.55, mew=0, zorder=2)
        for row in settings.itertuples():
            colour, marker = looks[row.variant]
            if row.pick:
                axes.plot(row.cost / scale, row.score, "o", mfc="none", mec=style.INK, markersize=15, mew=1.3, zorder=4)
            axes.plot(row.cost / scale, row.score, marker, color=colour, markersize=8, mec="white", mew=0.8, zorder=3)

        axes.margins(x=0.16, y=0.16)
        low, high = axes.get_xlim()
        axes.set_xlim(max(0.0, low), high)
        axes.set_xlabel(cost_label.replace("[bytes]", f"[{unit}]"))
        axes.set_ylabel(score_label)
        axes.set_title(title)
        left, right = axes.get_xlim()
        _name_the_bar(axes, bar, bar_label, steps)
        named = [(row.cost / scale, row.score) for row in settings.itertuples()]
        style.place_labels(
            axes,
            [*named, *((row.cost / scale, row.score) for row in runs.itertuples())],
            [str(row.setting) for row in settings.itertuples()],
            [looks[row.variant][0] for row in settings.itertuples()],
            radii=[8 if row.pick else 5 for row in settings.itertuples()] + [2] * len(runs),
            lines=[steps, [(left, bar), (right, bar)]],
        )
    return figure


def _staircase(front: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the region that the front dominates: level until the next setting is affordable, then up."""
    corners = front[:1]
    for cost, score in front[1:]:
        corners += [(cost, corners[-1][1]), (cost, score)]
    return corners


def _name_the_bar(axes: Axes, bar: float, label: str, front: list[tuple[float, float]]) -> None:
    """Above the dashed line, at the end that is further from where the front crosses it."""
    crossing = next((cost for cost, score in front if score >= bar), front[0][0])
    at_left = crossing > sum(axes.get_xlim()) / 2
    axes.annotate(
        label,
        (0.01 if at_left else 0.99, bar),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if at_left else "right",
        va="bottom",
        fontsize=7.5,
        color=style.INK,
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
    )
