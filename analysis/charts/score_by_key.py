"""Score against a number that a study varies, such as `variant.r`: one line for each combination of the other keys."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.charts import labels, style

_FEWEST_VALUES = 3  # with two values, a line says no more than a table
_MOST_LINES = 10
_DECADE = 8.0  # from this ratio of the largest to the smallest value, the axis is logarithmic
_SPREAD_LINES = 6  # with more lines, bands would cover each other


def numeric_keys(settings: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys with at least three different numbers that occur in the names of settings, which are the keys that the
    study varies. A key that follows from the variant (`variant.r` of `lora_r8`) is not among them."""
    found = []
    for key in keys:
        if key not in settings or not pd.api.types.is_numeric_dtype(settings[key]):
            continue
        last = key.rpartition(".")[2]
        named = settings["setting"].astype(str).str.contains(rf"(?:^|[ .]){last}=", regex=True)
        if settings.loc[named & settings["score"].notna(), key].nunique() >= _FEWEST_VALUES:
            found.append(key)
    return found


def data(settings: pd.DataFrame, scored: pd.DataFrame, key: str, keys: Sequence[str]) -> pd.DataFrame:
    """Columns `kind`, `line`, `value`, `score`: one row of kind `run` for each scored run, and of kind `mean` for each
    setting, with the smallest and the largest score of its runs as `low` and `high`.

    Args:
        settings: the report's settings, with the columns of the keys.
        scored: the runs that count.
        key: the number on the axis.
        keys: all numeric keys of the study; a line has one value of each other key, and one variant.
    """
    others = [other for other in keys if other != key]
    known = settings.dropna(subset=[key, "score"])
    variants = known["variant"].nunique()

    def line_of(row: pd.Series) -> str:
        named = [str(row["variant"])] if variants > 1 else []
        named += [f"{other.rpartition('.')[2]} {row[other]:g}" for other in others if pd.notna(row[other])]
        return " ".join(named) or str(row["variant"])

    lines = dict(zip(known["setting"].astype(str), known.apply(line_of, axis=1), strict=True)) if len(known) else {}
    of_setting = known.set_index(known["setting"].astype(str))[key].astype(float)
    runs = scored[scored["setting"].astype(str).isin(lines)]
    names = runs["setting"].astype(str)
    points = pd.DataFrame(
        {"kind": "run", "line": names.map(lines), "value": names.map(of_setting), "score": runs["score"].astype(float)}
    )
    means = points.groupby(["line", "value"], sort=True)["score"].agg(score="mean", low="min", high="max").reset_index()
    kept = _best_lines(means)
    both = pd.concat([means.assign(kind="mean"), points], ignore_index=True)
    return both[both["line"].isin(kept)].reset_index(drop=True)


def _best_lines(means: pd.DataFrame) -> list[str]:
    """The lines with several values; of many, those that are spread evenly over the order of the lines' values."""
    counts = means.groupby("line", sort=False).size()
    lines = sorted((str(line) for line in counts[counts > 1].index), key=_in_order)
    if len(lines) <= _MOST_LINES:
        return lines
    return [lines[index] for index in sorted({round(i) for i in np.linspace(0, len(lines) - 1, _MOST_LINES)})]


def _in_order(line: str) -> list[tuple[int, float, str]]:
    """Words as text, numbers by value."""
    parts = []
    for part in line.split():
        try:
            parts.append((0, float(part), ""))
        except ValueError:
            parts.append((1, 0.0, part))
    return parts


def draw(
    points: pd.DataFrame,
    *,
    key: str,
    score_label: str,
    title: str,
    threshold: float | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Lines of means, a point for each run, and a band from the smallest to the largest score of a setting. `axes` are
    drawn on instead of those of a new figure."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure() if axes is None else (axes.figure, axes)
        lines = sorted(points["line"].unique(), key=_in_order)
        colours = _colours(lines)
        names = []
        for line in lines:
            own = points[points["line"] == line]
            means = own[own["kind"] == "mean"].sort_values("value")
            runs = own[own["kind"] == "run"]
            colour = colours[line]
            if len(lines) <= _SPREAD_LINES and (means["high"] > means["low"]).any():
                axes.fill_between(means["value"], means["low"], means["high"], color=colour, alpha=0.13, linewidth=0)
            axes.plot(means["value"], means["score"], color=colour, linewidth=1.4, marker="o", markersize=4)
            axes.plot(runs["value"], runs["score"], ".", color=colour, markersize=3, alpha=0.5)
            last = means.iloc[-1]
            names.append(labels.Label(last["value"], last["score"], line, colour, 2.0))
        if threshold is not None:
            axes.axhline(threshold, color=style.FAINT, linewidth=0.9, linestyle="--", zorder=1)
        _scale(axes, sorted(points["value"].unique()))
        axes.set_xlabel(key)
        axes.set_ylabel(score_label)
        style.set_title(axes, title)
        if len(lines) > 1:
            labels.place_at_right(axes, names)
    return figure


def _colours(lines: Sequence[str]) -> dict[str, str]:
    """Colours of the palette; where there are more lines, an ordered scale from dark to light."""
    if len(lines) <= len(style.COLOURS):
        return dict(zip(lines, style.COLOURS, strict=False))
    scale = mpl.colormaps["viridis"]
    return {line: mpl.colors.to_hex(scale(0.88 * i / (len(lines) - 1))) for i, line in enumerate(lines)}


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values span a decade; ticks at the values themselves, if they are few."""
    if values[0] > 0 and values[-1] / values[0] >= _DECADE:
        axes.set_xscale("log")
    if len(values) <= 8:
        axes.set_xticks(values)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_number if values[-1] < 1 else style.number)


def _number(value: float, _: int | None = None) -> str:
    return f"{value:.2g}"
