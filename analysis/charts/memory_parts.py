"""What the peak is made of: weights, gradients, optimizer state, activations, per variant.

A meter reads sums. The parts of a run that ended well are those of its prediction, and the chart names the source;
those of one that ran out of memory are what was alive at that moment, as measured."""

from __future__ import annotations

import re

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis import formatting
from analysis.charts import style
from analysis.charts.names import shorten

# In the order of stacking; a run's measurement `memory/…<part>_bytes` belongs to the part that it names.
PARTS = {
    "weights": ("weights", "frozen_weights", "trainable_weights", "quantized_weights", "quantization_state"),
    "gradients": ("gradients",),
    "optimizer state": ("optimizer_state",),
    "paged optimizer state": ("predicted_paged",),
    "activations": (
        "activations",
        "logits_and_loss",
        "temporaries",
        "activations_and_temporaries",
        "buffers_and_batch",
    ),
    "other": ("workspaces", "allocator_rounding", "other"),
}
_COLOURS = dict(zip(PARTS, ("#0072B2", "#56B4E9", "#E69F00", "#F0E442", "#009E73", style.FAINT), strict=True))
_NAME = re.compile(r"memory/(?:[a-z_]+/)?(?:train_|peak_|part_)*([a-z_]+)_bytes")
_OUT_OF_MEMORY = "memory/oom_live_"  # what was alive when a run failed
_MARK = " (out of memory)"
MOST = 12  # bars


def data(settings: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per setting that has parts: `setting` (marked where it ran out of memory: then they are what was alive at
    that moment) and bytes per part, means over its runs, smallest memory first; empty where no run has them. Of many
    settings the selected one, the best, and the smallest others; `attrs["of"]` is how many there were."""
    measured = _means(runs[runs["outcome"] == "ok"], _columns(runs, out_of_memory=False))
    failed = _means(runs[runs["outcome"] == "oom"], _columns(runs, out_of_memory=True))
    known = settings[settings["setting"].isin([*measured, *failed])].sort_values(["memory", "setting"])
    matters = known["selected"].astype(bool) | known["best"].astype(bool)
    shown = pd.concat([known[matters], known[~matters]]).head(MOST).sort_values(["memory", "setting"])
    rows = [
        {"setting": name, **measured[name]} if name in measured else {"setting": f"{name}{_MARK}", **failed[name]}
        for name in shown["setting"].astype(str)
    ]
    made = pd.DataFrame(rows)
    made.attrs["of"] = len(known)
    return made


def _means(runs: pd.DataFrame, columns: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """setting → its parts, for those that have any."""
    sums = pd.DataFrame({part: runs[names].astype(float).sum(axis=1, min_count=1) for part, names in columns.items()})
    means = sums.groupby(runs["setting"]).mean().dropna(how="all")
    return {str(name): {part: v for part, v in row.items() if pd.notna(v)} for name, row in means.iterrows()}


def _columns(runs: pd.DataFrame, out_of_memory: bool) -> dict[str, list[str]]:
    """part → the columns that belong to it."""
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for column in runs.columns:
        if column.startswith(_OUT_OF_MEMORY) != out_of_memory:
            continue
        match = _NAME.fullmatch(column.replace(_OUT_OF_MEMORY, "memory/"))
        for part, names in PARTS.items():
            if match and match[1] in names:
                found[part].append(column)
    return found


def _short(name: str) -> str:
    """The mark stays, whatever becomes of the name."""
    bare = name.removesuffix(_MARK)
    return shorten(bare) + ("\n(out of memory)" if bare != name else "")


def label(parts: pd.DataFrame) -> str:
    """What the bars' length is."""
    some = f", {len(parts)} of {parts.attrs['of']} settings" if parts.attrs["of"] > len(parts) else ""
    if parts["setting"].str.endswith(_MARK).any():
        return f"predicted peak while training{some},\nor what was alive when memory ran out"
    return f"predicted peak while training{some}"


def draw(parts: pd.DataFrame, label: str) -> Figure:
    """Stacked bars, one per setting, at most MOST of them."""
    with mpl.rc_context(style.RC):
        shown = parts.head(MOST)
        figure, axes = style.new_figure(1.5 + 0.32 * len(shown))
        names = [part for part in PARTS if part in shown and shown[part].fillna(0).gt(0).any()]
        scale, unit = formatting.scale("[bytes]", float(shown[names].sum(axis=1).max()))
        left = pd.Series(0.0, index=shown.index)
        for part in names:
            width = shown[part].fillna(0) / scale
            axes.barh(range(len(shown)), width, left=left, color=_COLOURS[part], label=part, height=0.62,
                      edgecolor=style.PAPER, linewidth=0.6)  # fmt: skip
            left += width
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown["setting"]])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{label} [{unit}]")
        style.set_title_at_edge(figure, "What the peak is made of")
        figure.legend(ncols=len(names), loc="outside lower center", frameon=False, fontsize=7.5, handlelength=1,
                      columnspacing=1, borderaxespad=0.2)  # fmt: skip
    return figure
