"""What all charts share: size, type, one colour and marker per variant, and labels that do not overlap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# Okabe & Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color), without its yellow: too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#222222", "#8a8a8a"

# DejaVu Sans travels with matplotlib and has no Korean, Japanese or Chinese: one of the others does, where installed.
_WIDE_FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")

RC = {
    "font.family": ["DejaVu Sans", *(font for font in _WIDE_FONTS if font in font_manager.get_font_names())],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "paretune",  # the same data give the same file
    "savefig.dpi": 200,
}
_DATES = {".svg": {"Date": None}, ".png": {"Software": None}}


def looks(variants: Sequence[str]) -> dict[str, tuple[str, str]]:
    """variant → (colour, marker), by order of first appearance."""
    pairs = itertools.cycle(zip(COLOURS, MARKERS, strict=True))
    return dict(zip(dict.fromkeys(variants), pairs, strict=False))


def new_figure() -> tuple[Figure, Axes]:
    """A figure of a column's width, made without pyplot and so without global state."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # measures text, for labels that keep apart
    return figure, figure.add_subplot()


def save(figure: Figure, stem: Path) -> list[Path]:
    """`stem`.png and `stem`.svg, without dates."""
    paths = []
    with mpl.rc_context(RC):
        for suffix, metadata in _DATES.items():
            path = stem.with_suffix(suffix)
            figure.savefig(path, metadata=metadata)
            paths.append(path)
    return paths


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    *,
    radii: Sequence[float],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """A name beside each point, at the place where it covers the least: no mark, no other name, no line, no edge.

    `points` beyond `texts` are marks without a name; `radii` are the marks' sizes in points. A mark or name in the way
    counts ten times as much as a line. All in data coordinates.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    per_point = figure.dpi / 72
    marks = [
        Bbox.from_extents(x - r, y - r, x + r, y + r)
        for (x, y), r in zip(axes.transData.transform(points), (radius * per_point for radius in radii), strict=True)
    ]
    strokes = [box for line in lines for box in _along(axes.transData.transform(line))]
    inside = axes.get_window_extent(renderer)
    for index, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        label = axes.annotate(text, points[index], xytext=(0, 0), textcoords="offset points", **_label_font(colour))
        costs = []
        for gap, (dx, dy) in itertools.product((3, 9, 16), _DIRECTIONS):
            _move(label, dx, dy, radii[index] + gap)
            box = label.get_window_extent(renderer)
            outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
            hidden = sum(box.overlaps(mark) for mark in marks)
            crossed = any(box.overlaps(stroke) for stroke in strokes)
            costs.append((100 * outside + 10 * hidden + crossed, len(costs), dx, dy, gap))
        *_, dx, dy, gap = min(costs)
        _move(label, dx, dy, radii[index] + gap)
        marks.append(label.get_window_extent(renderer))


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))


def _label_font(colour: str) -> dict[str, object]:
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    return {"color": colour, "fontsize": 8.5, "fontweight": "bold", "path_effects": halo}


def _move(label: Annotation, dx: int, dy: int, distance: float) -> None:
    """To a side of its point, aligned so that the text begins there."""
    step = distance * (0.75 if dx and dy else 1)
    label.set_position((dx * step, dy * step))
    label.set_horizontalalignment({1: "left", -1: "right", 0: "center"}[dx])
    label.set_verticalalignment({1: "bottom", -1: "top", 0: "center"}[dy])


def _along(vertices: np.ndarray, spacing: float = 6.0) -> list[Bbox]:
    """Small boxes along a broken line, in pixels."""
    boxes = []
    for (x0, y0), (x1, y1) in itertools.pairwise(vertices):
        steps = max(1, int(np.hypot(x1 - x0, y1 - y0) // spacing))
        for t in np.linspace(0, 1, steps + 1):
            x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
            boxes.append(Bbox.from_extents(x - 1, y - 1, x + 1, y + 1))
    return boxes
