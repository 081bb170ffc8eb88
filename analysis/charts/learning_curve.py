"""Values by optimizer step, one line per setting: the mean over its seeds, with a band from the smallest to the
largest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.charts import labels, style
from analysis.loading.study import Point
from sweep.core.measurements import SCORE, SCORE_BY_STEP

_MOST_SETTINGS, _MOST_SEEDS = 8, 5
_POINTS = 250  # per line
_WINDOWS = 30  # a loss is smoothed over a window of this share of the steps
_WITH_BANDS = 5  # lines; bands and raw values of more would cover each other
COLUMNS = ("setting", "variant", "step", "value", "low", "high", "raw")


def data(
    settings: pd.DataFrame, runs: pd.DataFrame, history: Callable[[str, str], Sequence[Point]], key: str
) -> pd.DataFrame:
    """Columns `setting`, `variant`, `step`, `value`, `low`, `high`, `raw`: of the selected setting, the best, and the
    others with the best scores. `value` is the mean over runs, `low` and `high` the smallest and largest run.

    A loss is the moving mean of each run, and `raw` the mean over runs without it. A score ends with that of the final
    evaluation. The runs are those that ended well, as in the table; of a setting without such runs, all, as far as they
    came. Of runs with different steps, only steps that all of them have. Empty where no run has two steps of `key`.
    """
    order = settings.assign(first=settings["selected"].astype(int) + settings["best"].astype(int))
    order["distance"] = (order["score"] - settings.loc[settings["best"], "score"].iloc[0]).abs()
    chosen = order.sort_values(["first", "distance"], ascending=[False, True]).head(_MOST_SETTINGS)
    parts = []
    for row in chosen.itertuples():
        own = runs[runs["setting"] == row.setting]
        ended = own[own["outcome"] == "ok"]
        used = (ended if len(ended) else own).head(_MOST_SEEDS)
        found = [_series(run, history(str(run["run_id"]), key), key) for _, run in used.iterrows()]
        found = [series for series in found if len(series) > 1]
        if found:
            parts.append(
                _over_runs(found, smooth=key != SCORE_BY_STEP).assign(setting=row.setting, variant=row.variant)
            )
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _series(run: pd.Series, points: Sequence[Point], key: str) -> pd.Series:
    """The values of one run by step."""
    found = {point.step: point.value for point in points if math.isfinite(point.value)}
    if key == SCORE_BY_STEP and run["outcome"] == "ok" and found:
        steps = run.get("train/steps")
        if pd.notna(steps) and pd.notna(run[SCORE]):
            found[int(steps)] = float(run[SCORE])
    elif key != SCORE_BY_STEP:
        found.pop(0, None)
    return pd.Series(found, dtype=float).sort_index()


def _over_runs(series: Sequence[pd.Series], *, smooth: bool) -> pd.DataFrame:
    raw = pd.concat(series, axis=1, join="inner").sort_index()
    window = max(1, len(raw) // _WINDOWS) if smooth else 1
    smoothed = raw.rolling(window, center=True, min_periods=1).mean()
    found = pd.DataFrame(
        {
            "step": raw.index,
            "value": smoothed.mean(axis=1),
            "low": smoothed.min(axis=1),
            "high": smoothed.max(axis=1),
            "raw": raw.mean(axis=1) if smooth else math.nan,
        }
    )
    return found.iloc[:: max(1, math.ceil(len(found) / _POINTS))]


def draw(
    points: pd.DataFrame,
    *,
    title: str,
    value_label: str,
    looks: style.Looks,
    log: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """`log` for losses that fall over decades. A colour stands for a variant, or for a setting where a variant has
    several lines. `axes` are drawn on instead of those of a new figure."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure() if axes is None else (axes.figure, axes)
        names = []
        settings = points[["setting", "variant"]].drop_duplicates()
        colours = itertools.cycle(style.COLOURS) if settings["variant"].duplicated().any() else None
        few = len(settings) <= _WITH_BANDS
        for number, ((setting, variant), line) in enumerate(points.groupby(["setting", "variant"], sort=False)):
            colour = next(colours) if colours is not None else looks[str(variant)][0]
            dash = "-" if number < len(style.COLOURS) else "--"
            if few and line["raw"].notna().any():
                axes.plot(line["step"], line["raw"], color=colour, linewidth=0.6, alpha=0.3)
            if few and (line["high"] > line["low"]).any():
                axes.fill_between(line["step"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
            marker = "." if len(line) <= 12 else None
            axes.plot(line["step"], line["value"], dash, color=colour, linewidth=1.4, marker=marker)
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
