"""Predicted peak memory of each setting, by what it is for, against the cards that it is to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis import formatting
from analysis.charts import memory_parts, style
from analysis.charts.names import shorten


def data(predictions: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per setting: `setting`, `memory`, and bytes per part, smallest memory first. `predictions` hold
    `setting`, `allocated_bytes`, `paged_bytes` and `breakdown`, as the plan writes them."""
    rows = []
    for one in predictions:
        sizes = {**one["breakdown"], "predicted_paged": one["paged_bytes"]}
        parts = {part: float(sum(sizes.get(key, 0) for key in keys)) for part, keys in memory_parts.PARTS.items()}
        rows.append({"setting": one["setting"], "memory": float(one["allocated_bytes"] + one["paged_bytes"]), **parts})
    return pd.DataFrame(rows).sort_values(["memory", "setting"], ignore_index=True)


def draw(bars: pd.DataFrame, cards: Sequence[Mapping[str, Any]]) -> Figure:
    """Stacked bars, and a line for each card (`label`, `capacity_bytes`) near the bars. Of very many settings those
    that need the most: whether they fit is what is asked."""
    largest = float(bars["memory"].max())
    shown = bars.tail(memory_parts.MOST)
    few = "" if len(shown) == len(bars) else f"\nthe {len(shown)} largest of {len(bars)} settings"
    with mpl.rc_context(style.RC):
        figure = memory_parts.draw(shown, f"predicted peak while training{few}")
        axes = figure.axes[0]
        scale, _ = formatting.scale("[bytes]", largest)
        worst = bars.iloc[-1]
        title = f"{shorten(worst['setting'])} needs the most: {formatting.show_bytes(worst['memory'])}"
        style.set_title_at_edge(figure, title)
        for card in cards:
            if largest * 0.05 < card["capacity_bytes"] < largest * 1.35:
                at = card["capacity_bytes"] / scale
                axes.axvline(at, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
                axes.annotate(f"{card['label']} GB", (at, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                              textcoords="offset points", fontsize=7.5, color=style.INK, ha="center")  # fmt: skip
    return figure


def save(bars: pd.DataFrame, cards: Sequence[Mapping[str, Any]], stem: Path) -> list[Path]:
    """The figure as PNG and SVG."""
    return style.save(draw(bars, cards), stem, (".png", ".svg"))
