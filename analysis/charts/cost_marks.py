"""The marks of a cost curve, their names, and the key below them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from analysis.charts import labels, style
from analysis.decision.verdict_words import MISSES
from analysis.formatting import percent

_STEPS = 20  # of a mark's opacity, from no chance to reach the threshold to certainty
_MOST_NAMES = 12
_CROWD = 60  # settings in the picture: beyond that, marks are smaller


class Pen(NamedTuple):
    """Draws marks into axes whose limits are set. `names` are shorter names of settings; `cost` and `unit` describe the
    horizontal axis for the text that a mark shows when the mouse is over it."""

    axes: Axes
    looks: style.Looks
    names: Mapping[str, str]
    cost: str
    unit: str

    def draw_runs(self, runs: pd.DataFrame) -> None:
        for group, colour, _ in self._by_variant(runs):
            self._plot(group, ".", color=colour, markersize=6, alpha=0.5, mew=0, zorder=2)

    def draw_settings(self, settings: pd.DataFrame) -> None:
        for group, colour, marker in self._by_variant(settings):
            known = group[group["score_low"].notna()]
            low, high = self.axes.get_ylim()
            self.axes.vlines(known["cost"], known["score_low"].clip(low, high), known["score_high"].clip(low, high),
                             color=colour, alpha=0.45, linewidth=1.3, zorder=2)  # fmt: skip
            for chance, some in group.groupby((group["p_reaches_bar"].fillna(1.0) * _STEPS).round(), sort=False):
                out = (some["verdict"] == MISSES).all()
                size = 7.5 if len(settings) <= _CROWD else 4.0 if out else 6.0
                order = 2.5 if out else 3
                self._plot(some, marker, mfc=style.PAPER, mec="none", markersize=size, zorder=order)
                self._plot(some, marker, mfc=to_rgba(colour, chance / _STEPS), mec=colour, markersize=size,
                           mew=1.2 if size > 5 else 0.8, zorder=order)  # fmt: skip
        chosen = settings[settings["selected"].astype(bool)]
        self._plot(chosen, "o", mfc="none", mec=style.INK, markersize=15, mew=1.3, zorder=4)
        self._hover(settings, 5.0)

    def draw_at_edge(self, outside: pd.DataFrame) -> None:
        """A tick for each setting that is left out of the picture: at the edge where it would be."""
        (left, right), (low, high) = self.axes.get_xlim(), self.axes.get_ylim()
        at = outside.assign(cost=outside["cost"].clip(left, right), score=outside["score"].clip(low, high))
        for group, colour, _ in self._by_variant(at):
            level = group["score"].between(low, high, inclusive="neither")
            for some, tick in ((group[~level], "|"), (group[level], "_")):
                self._plot(some, tick, color=colour, markersize=9, mew=1.4, clip_on=False, zorder=5)
        self._hover(at, 4.0, outside)

    def draw_ended(self, ended: pd.DataFrame) -> None:
        """Runs that were stopped, and settings that ran out of memory: these are at the bottom, without a score."""
        for group, colour, _ in self._by_variant(self._placed(ended)):
            for kind, mark in (("oom", "x"), ("pruned", "+")):
                some = group[group["kind"] == kind]
                self._plot(some, mark, color=colour, markersize=8, mew=1.8, clip_on=False, zorder=5)
        self._hover(self._placed(ended), 5.0, ended)

    def _plot(self, marks: pd.DataFrame, marker: str, **look: Any) -> None:
        if len(marks):  # a line without points has its place at the corner of the figure
            self.axes.plot(marks["cost"], marks["score"], marker, **look)

    def labels_of(self, settings: pd.DataFrame, many: int) -> list[labels.Label]:
        """At most _MOST_NAMES names: of the selected setting, the best, the front, then the best scores. Of more than
        `many` settings only the first two must be there; the others are where they have room."""
        ordered = settings.assign(
            rank=settings["selected"].astype(int) * 4 + settings["best"].astype(int) * 2 + settings["front"].astype(int)
        ).sort_values(["rank", "score"], ascending=False)
        return [
            labels.Label(
                row.cost, row.score, self.names.get(str(row.setting), str(row.setting)), self.looks[row.variant][0],
                8.0 if row.selected else 4.5, needed=len(settings) <= many or bool(row.selected or row.best),
            )
            for row in ordered.head(_MOST_NAMES).itertuples()
        ]  # fmt: skip

    def labels_of_ended(self, ended: pd.DataFrame) -> list[labels.Label]:
        words = {"oom": "out of memory", "pruned": "stopped"}
        once = self._placed(ended).drop_duplicates(["kind", "setting"])
        return [
            labels.Label(
                row.cost, row.score, f"{words[row.kind]}: {self.names.get(str(row.setting), str(row.setting))}",
                self.looks[row.variant][0], 5.0, needed=len(once) <= 3,
            )
            for row in once.head(_MOST_NAMES).itertuples()
        ]  # fmt: skip

    def _placed(self, ended: pd.DataFrame) -> pd.DataFrame:
        low, high = self.axes.get_ylim()
        score = ended["score"].astype(float).fillna(low).clip(low, high)
        return ended.assign(score=score, cost=ended["cost"].clip(*self.axes.get_xlim()))

    def _by_variant(self, marks: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, str]]:
        """The marks of each variant, with its colour and marker."""
        for variant, group in marks.groupby("variant", sort=False):
            yield group, *self.looks[str(variant)]

    def _hover(self, drawn: pd.DataFrame, radius: float, true: pd.DataFrame | None = None) -> None:
        """Texts of marks; `true` has the figures of marks that are not drawn where they belong."""
        texts = [self._text(row) for row in (drawn if true is None else true).itertuples()]
        style.add_hover(self.axes, zip(drawn["cost"], drawn["score"], texts, strict=True), radius)

    def _text(self, row: Any) -> str:
        parts = [] if np.isnan(row.score) else [f"score {row.score:.4f}"]
        parts.append(f"{self.cost} {style.number(float(f'{row.cost:.4g}'))} {self.unit}".rstrip())
        if row.kind == "setting" and isinstance(row.verdict, str):
            parts.append(f"chance to reach the threshold {percent(row.p_reaches_bar)}")
        return f"{row.setting}: {', '.join(parts)}"


def key(settings: pd.DataFrame, ended: pd.DataFrame, outside: int) -> list[str]:
    """What the marks mean, as far as they occur."""
    known = settings["p_reaches_bar"].notna().any()
    first = ["fill: chance to reach the threshold, from none (hollow) to certain (full)"] if known else []
    first += ["circled: selected"] if settings["selected"].astype(bool).any() else []
    kinds = set(ended["kind"])
    first += [words for kind, words in (("oom", "×: out of memory"), ("pruned", "+: stopped")) if kind in kinds]
    some = " (selected, best, front)" if settings["score_low"].isna().any() else ""
    second = [f"bars: 95% interval of the true score{some}"] if settings["score_low"].notna().any() else []
    second += [f"ticks at the edge: {outside} settings outside the picture"] if outside else []
    return [" · ".join(first), " · ".join(second)]


def write_below(axes: Axes, lines: Sequence[str]) -> None:
    """Small, below the label of the horizontal axis, which keeps room for them."""
    text = "\n".join(filter(None, lines))
    axes.set_xlabel(f"{axes.get_xlabel()}\n" + "\n" * text.count("\n"))
    axes.annotate(text, (0.5, 0), xycoords=axes.xaxis.label, ha="center", va="bottom", fontsize=7, color=style.INK)


def name_the_threshold(axes: Axes, score_threshold: float, label: str, marks: pd.DataFrame) -> Text:
    """On the dashed line, above or below, at the end where fewest marks are near."""
    to_axes = axes.transData - axes.transAxes
    points = to_axes.transform(marks[["cost", "score"]].to_numpy(float))
    height = to_axes.transform((axes.get_xlim()[1], score_threshold))[1]
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
