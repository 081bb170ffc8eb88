"""Names next to points, placed where they cover the least."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from analysis.charts.names import shorten
from analysis.charts.style import PAPER

# Behind a name. An outline around its letters would do too, but turns text into paths: no reader's font, no search.
BACKGROUND = {"facecolor": PAPER, "alpha": 0.7, "linewidth": 0, "pad": 0.6}
_SIDES = np.array(
    [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1), (1, 0.4), (1, -0.4), (-1, 0.4), (-1, -0.4)]
)
_GAPS = (3.0, 9.0, 16.0, 26.0, 40.0, 60.0, 85.0, 115.0)  # points
_NEAR_ENOUGH = 2  # gaps: beyond them, a line leads from the name to its point
_LINE_POINTS = 11.0
_SPACING = 6.0  # pixels between the boxes that stand for a line
_OUTSIDE, _NAMED, _HIDDEN, _LED, _CROSSED, _STRAYED = 100.0, 40.0, 10.0, 4.0, 1.0, 0.4  # the last per gap


class Label(NamedTuple):
    """A name for a point in data coordinates; `radius` is the mark's in points. One that is not `needed` is left out
    where it would cover or cross something, or would be far away."""

    x: float
    y: float
    text: str
    colour: str
    radius: float
    needed: bool = True


def place(
    axes: Axes,
    labels: Sequence[Label],
    *,
    marks: Sequence[tuple[float, float, float]] = (),
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    texts: Sequence[Text] = (),
) -> None:
    """A name next to each point, at the place where it covers the least: no mark, no other name, no line, no edge.

    `marks` are further points without a name, with their radii in points. A name in the way is worse than a mark, and a
    mark worse than a line. `texts` are there already.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # names are placed for this layout
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    points = np.array([*((label.x, label.y, label.radius) for label in labels), *marks], float).reshape(-1, 3)
    centres, radii = axes.transData.transform(points[:, :2]), points[:, 2:] * scale
    boxes = np.concatenate([centres - radii, centres + radii], axis=1)
    names = [np.array(text.get_window_extent(renderer).extents) for text in texts]
    strokes = [_along(axes.transData.transform(line)) for line in lines if len(line) > 1]
    crossed = np.concatenate(strokes) if strokes else np.zeros((0, 4))
    window = axes.get_window_extent(renderer)
    for label in labels:
        text = axes.annotate(
            shorten(label.text), (label.x, label.y), xytext=(0, 0), textcoords="offset points", **_font(label)
        )
        extent = text.get_window_extent(renderer)
        size = np.array([extent.width, extent.height])
        centre = axes.transData.transform((label.x, label.y))
        offsets, candidates, costs = [], [], []
        for number, gap in enumerate(_GAPS):
            for side in _SIDES:
                step = (label.radius + gap) * (0.75 if abs(side).min() == 1 else 1.0)
                middle = centre + side * (step * scale + size / 2)
                box = np.concatenate([middle - size / 2, middle + size / 2])
                outside = box[0] < window.x0 or box[1] < window.y0 or box[2] > window.x1 or box[3] > window.y1
                cost = _OUTSIDE * outside + _HIDDEN * _overlaps(box, boxes) + _NAMED * _overlaps(box, np.array(names))
                if number >= _NEAR_ENOUGH and not outside and names:  # its line is not to cross a name either
                    leader = _along([centre, np.clip(centre, box[:2], box[2:])])
                    cost += _LED * any(_overlaps(dot, np.array(names)) for dot in leader)
                costs.append(cost + _CROSSED * min(1, _overlaps(box, crossed)) + _STRAYED * number)
                offsets.append((middle - centre) / scale)
                candidates.append(box)
        best = int(np.argmin(costs))
        if not label.needed and costs[best] >= _STRAYED:
            text.remove()
            continue
        text.set(position=tuple(offsets[best]), horizontalalignment="center", verticalalignment="center")
        if best >= _NEAR_ENOUGH * len(_SIDES):
            line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": label.radius}
            axes.annotate("", (label.x, label.y), tuple(offsets[best]), textcoords="offset points", arrowprops=line)
            end = np.clip(centre, candidates[best][:2], candidates[best][2:])
            crossed = np.concatenate([crossed, _along([centre, end])])
        names.append(candidates[best])


def place_at_right(axes: Axes, labels: Sequence[Label]) -> None:
    """Names of lines in the right margin, in the order of the lines' ends and apart from each other."""
    axes.figure.draw_without_rendering()
    low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    gap = _LINE_POINTS * axes.figure.dpi / 72 / (high - low)
    ordered = sorted(labels, key=lambda label: label.y)
    wanted = [axes.transAxes.inverted().transform(axes.transData.transform((0, label.y)))[1] for label in ordered]
    heights = list(itertools.accumulate(wanted, lambda below, height: max(height, below + gap)))
    down = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for label, height in zip(ordered, heights, strict=True):
        leader = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0}
        axes.annotate(
            shorten(label.text), (label.x, label.y), (1.03, height - down), xycoords="data", textcoords="axes fraction",
            va="center", arrowprops={**leader, "relpos": (0, 0.5)}, **_font(label),
        )  # fmt: skip


def _font(label: Label) -> dict[str, object]:
    return {"color": label.colour, "fontsize": 8, "fontweight": "bold", "bbox": BACKGROUND, "zorder": 6}


def _overlaps(box: np.ndarray, others: np.ndarray) -> int:
    if not len(others):
        return 0
    apart = (others[:, 2] < box[0]) | (others[:, 0] > box[2]) | (others[:, 3] < box[1]) | (others[:, 1] > box[3])
    return int((~apart).sum())


def _along(vertices: np.ndarray) -> np.ndarray:
    """Small boxes along a broken line, in pixels."""
    parts = []
    for start, end in itertools.pairwise(vertices):
        count = max(2, int(np.hypot(*(end - start)) // _SPACING))
        parts.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    dots = np.concatenate(parts)
    return np.concatenate([dots - 1, dots + 1], axis=1)
