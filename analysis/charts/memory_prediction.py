"""Predicted against measured peak memory: one mark per run, and the line where both are equal."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis import formatting
from analysis.charts import style

PREDICTED, MEASURED = "memory/predicted_bytes", "max_memory_allocated"
_MOST_VARIANTS = 12  # in the legend; the mouse shows the names of more
_COLUMNS = ["setting", "variant", "seed", "predicted", "measured", "error"]


def data(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run that has both figures: `predicted` and `measured` in bytes, `error` = predicted / measured - 1.

    Runs that ended otherwise than `ok` are left out: what they reached is not a peak. Empty where nothing was
    predicted.
    """
    if PREDICTED not in runs or MEASURED not in runs:
        return pd.DataFrame(columns=_COLUMNS)
    ok = runs[(runs["outcome"] == "ok") & (runs[PREDICTED] > 0) & (runs[MEASURED] > 0)]
    marks = ok.rename(columns={PREDICTED: "predicted", MEASURED: "measured"}).copy()
    marks["error"] = marks["predicted"] / marks["measured"] - 1
    return marks.reindex(columns=_COLUMNS).sort_values(["measured", "setting"], ignore_index=True)


def words(marks: pd.DataFrame) -> str:
    """The conclusion: the mean and the worst error, without its sign and with it."""
    worst = marks["error"].loc[marks["error"].abs().idxmax()]
    return f"Predictions are off by {marks['error'].abs().mean():.1%} on average, {worst:+.1%} at worst"


def draw(marks: pd.DataFrame, looks: style.Looks | None = None) -> Figure:
    """`marks` are `data`'s, at least one of them; `looks` the report's, so that a variant looks the same in all charts.
    A setting's runs that coincide are one mark to the eye."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure()
        looks = {**style.looks(marks["variant"].tolist()), **(looks or {})}
        largest = float(marks[["predicted", "measured"]].max().max())
        scale, unit = formatting.scale("[bytes]", largest)
        end = largest * 1.08 / scale
        axes.plot([0, end], [0, end], color=style.FAINT, linewidth=1, zorder=1)
        axes.annotate("line: predicted = measured", (0.99, 0.03), xycoords="axes fraction", ha="right", fontsize=7.5,
                      color=style.INK)  # fmt: skip
        for row in marks.itertuples():
            colour, marker = looks[row.variant]
            axes.plot(row.measured / scale, row.predicted / scale, marker, color=colour, markersize=7, alpha=0.8,
                      mec="white", mew=0.7, zorder=2, label=row.variant)  # fmt: skip
        texts = [f"{row.setting} · seed {row.seed}: {row.error:+.1%}" for row in marks.itertuples()]
        style.add_hover(axes, zip(marks["measured"] / scale, marks["predicted"] / scale, texts, strict=True), 5.0)
        axes.set_xlim(0, end)
        axes.set_ylim(0, end)
        axes.set_xlabel(f"measured peak memory while training [{unit}]")
        axes.set_ylabel(f"predicted [{unit}]")
        style.set_title(axes, words(marks))
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        if len(once) <= _MOST_VARIANTS:
            axes.legend(once.values(), once.keys(), frameon=False, fontsize=7.5, loc="upper left", handletextpad=0.2)
    return figure
