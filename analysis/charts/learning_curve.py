"""Values by optimizer step, one line per setting: the mean over its seeds."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.charts import labels, style
from analysis.loading.study import Point

_MOST_SETTINGS, _MOST_SEEDS = 8, 3
_POINTS = 60  # per line, after averaging: more would be noise at this width


def data(
    settings: pd.DataFrame, runs: pd.DataFrame, history: Callable[[str, str], Sequence[Point]], key: str
) -> pd.DataFrame:
    """Columns `setting`, `variant`, `step`, `value`: of the selected setting, the best, and the others with
    the best scores.

    Values are means over at most _MOST_SEEDS runs and over windows of steps. Runs that did not end well are in it as
    far as they came. Empty where no run has two steps of `key`.
    """
    order = settings.assign(first=settings["selected"].astype(int) + settings["best"].astype(int))
    order["distance"] = (order["score"] - settings.loc[settings["best"], "score"].iloc[0]).abs()
    chosen = order.sort_values(["first", "distance"], ascending=[False, True]).head(_MOST_SETTINGS)
    parts = []
    for row in chosen.itertuples():
        own = runs[runs["setting"] == row.setting].head(_MOST_SEEDS)
        for run_id in own["run_id"]:
            points = [point for point in history(run_id, key) if point.step > 0]
            if len(points) > 1:
                parts.append(
                    pd.DataFrame(points, columns=["step", "value"]).assign(setting=row.setting, variant=row.variant)
                )
    if not parts:
        return pd.DataFrame(columns=["setting", "variant", "step", "value"])
    points = pd.concat(parts, ignore_index=True)
    window = max(1, int(points["step"].max()) // _POINTS)
    points["step"] = (points["step"] - 1) // window * window + (window + 1) / 2
    return points.groupby(["setting", "variant", "step"], sort=False, as_index=False)["value"].mean()


def draw(points: pd.DataFrame, *, title: str, value_label: str, looks: style.Looks, log: bool = False) -> Figure:
    """`log` for losses that fall over decades."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure()
        names = []
        dashes: dict[str, Iterator[str]] = defaultdict(lambda: itertools.cycle(("-", "--", "-.", ":")))
        for (setting, variant), line in points.groupby(["setting", "variant"], sort=False):
            colour = looks[str(variant)][0]
            line = line.sort_values("step")
            axes.plot(line["step"], line["value"], next(dashes[str(variant)]), color=colour, linewidth=1.4)
            last = line.iloc[-1]
            names.append(labels.Label(last["step"], last["value"], str(setting), colour, 2.0))
        if log and 0 < 10 * points["value"].min() < points["value"].max():
            axes.set_yscale("log")
            style.plain_numbers(axes.yaxis)
        axes.set_xlim(0, float(points["step"].max()))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(value_label)
        style.set_title(axes, title)
        labels.place_at_right(axes, names)
    return figure
