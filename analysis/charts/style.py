"""What all charts share: size, type, and one colour and marker per variant."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color), without its yellow: too pale on white.
# Its black is the ink of the text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT, GRID, PAPER = "#222222", "#8a8a8a", "#e6e6e6", "#ffffff"

# DejaVu Sans travels with matplotlib and has no Korean, Japanese or Chinese: one of the others does, where installed.
_WIDE_FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")

RC = {
    "font.family": ["DejaVu Sans", *(font for font in _WIDE_FONTS if font in font_manager.get_font_names())],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
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
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "paretune",  # the same data give the same file
    "savefig.dpi": 200,
}
_TITLE_CHARACTERS = 54
_METADATA = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None, "Producer": None}}

Looks = dict[str, tuple[str, str]]


def looks(variants: Sequence[str]) -> Looks:
    """variant → (colour, marker), by order of first appearance: 49 pairs before one comes again."""
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(variants))
    }


def new_figure(height_inches: float = 3.5) -> tuple[Figure, Axes]:
    """A figure of a column's width, made without pyplot and so without global state."""
    figure = Figure(figsize=(5.0, height_inches), layout="constrained")
    FigureCanvasAgg(figure)  # measures text, for labels that keep apart
    return figure, figure.add_subplot()


def set_title(axes: Axes, text: str) -> None:
    """The conclusion, over as many lines as it needs."""
    axes.set_title("\n".join(textwrap.wrap(text, _TITLE_CHARACTERS)))


def save(figure: Figure, stem: Path, suffixes: Sequence[str]) -> list[Path]:
    """`stem`.png, `stem`.svg or `stem`.pdf, without dates."""
    paths = []
    with mpl.rc_context(RC):
        for suffix in suffixes:
            path = stem.with_suffix(suffix)
            figure.savefig(path, metadata=_METADATA[suffix])
            paths.append(path)
    return paths
