"""Two studies in one picture: score against memory, the first filled, the second hollow, equal settings joined."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis import formatting
from analysis.charts import labels, style


def data(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two tables of settings → one row per setting and study: `study` (0 or 1), `setting`, `variant`, `cost`, `score`,
    `selected`."""
    parts = [table.assign(study=number, cost=table["memory"]) for number, table in enumerate((first, second))]
    marks = pd.concat([part[["study", "setting", "variant", "cost", "score", "selected"]] for part in parts])
    return marks.dropna(subset=["cost", "score"]).reset_index(drop=True)


def draw(marks: pd.DataFrame, metric: str, memory: str, names: tuple[str, str], looks: style.Looks) -> Figure:
    """`metric` and `memory` name the axes; `names` are those of the studies."""
    with mpl.rc_context(style.RC):
        figure, axes = style.new_figure()
        label = f"{memory} [bytes]"
        scale, unit = formatting.scale(label, float(marks["cost"].max()))
        marks = marks.assign(cost=marks["cost"] / scale)
        for _, both in marks.groupby("setting", sort=False):
            axes.plot(both["cost"], both["score"], "-", color=style.FAINT, linewidth=0.9, zorder=1)
        named = []
        for row in marks.itertuples():
            colour, marker = looks[row.variant]
            face = colour if row.study == 0 else style.PAPER
            axes.plot(row.cost, row.score, marker, mfc=face, mec=colour, markersize=7.5, mew=1.4, zorder=3)
            if row.selected:
                axes.plot(row.cost, row.score, "o", mfc="none", mec=style.INK, markersize=15, mew=1.2, zorder=4)
            if row.study == 0 or row.setting not in set(marks.loc[marks["study"] == 0, "setting"]):
                named.append(labels.Label(row.cost, row.score, str(row.setting), colour, 8.0 if row.selected else 4.5))
        texts = [f"{row.setting} in {names[row.study]}: score {row.score:.4f}" for row in marks.itertuples()]
        style.add_hover(axes, zip(marks["cost"], marks["score"], texts, strict=True), 5.0)
        axes.margins(0.16)
        axes.set_xlabel(label.replace("[bytes]", f"[{unit}]"))
        axes.set_ylabel(metric.replace("_", " "))
        style.set_title(axes, f"{names[0]} (filled) and {names[1]} (hollow); circled: selected")
        second = marks[marks["study"] == 1]
        labels.place(axes, named, marks=[(x, y, 4.5) for x, y in zip(second["cost"], second["score"], strict=True)])
    return figure
