"""What all charts share: size, type, and one colour and marker per variant."""

from __future__ import annotations

import contextlib
import logging
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color), without its yellow: too pale on white.
# Its black is the ink of the text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT, GRID, PAPER = "#222222", "#8a8a8a", "#e6e6e6", "#ffffff"

# DejaVu Sans travels with matplotlib and has no Korean, Japanese or Chinese: some of these do, where installed.
_WIDE_FONTS = re.compile(
    r"(Noto Sans CJK|Noto Sans (KR|JP|SC|TC)|Source Han Sans|Nanum ?Gothic|Malgun Gothic|Apple SD Gothic Neo"
    r"|Hiragino Sans|Yu Gothic|IPA ?\w*Gothic|WenQuanYi|Microsoft YaHei|PingFang|SimHei|UnDotum|Noto Emoji|Symbola).*"
)


logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of each font without a bold face


def _families() -> list[str]:
    """The fonts that names are written in. matplotlib remembers which fonts there are, so that one that was installed
    since has to be shown to it."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with contextlib.suppress(OSError, RuntimeError):  # no font, whatever it is called
                font_manager.fontManager.addfont(path)
    return ["DejaVu Sans", *sorted(filter(_WIDE_FONTS.fullmatch, font_manager.get_font_names()))]


RC = {
    "font.family": _families(),
    "text.parse_math": False,  # names come from outside: a $ is a $
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.pad": 5.0,  # level with the major ones, whose ticks are longer
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
    """variant → (colour, marker), by order of first appearance: 49 pairs, and a grey circle for all others."""
    count, most = len(COLOURS), len(COLOURS) * len(MARKERS)
    pairs = [(COLOURS[i % count], MARKERS[(i + i // count) % len(MARKERS)]) for i in range(most)]
    return {name: pairs[i] if i < most else (FAINT, "o") for i, name in enumerate(dict.fromkeys(variants))}


class Hover(NamedTuple):
    """A text that SVG shows when the mouse is over a point, within `radius` points of it."""

    axes: Axes
    x: float
    y: float
    text: str
    radius: float


class Chart(Figure):
    """A figure with the texts of its marks."""

    hover: list[Hover]


def new_figure(height_inches: float = 3.5, width_inches: float = 5.0) -> tuple[Chart, Axes]:
    """A figure, by default of a column's width, made without pyplot and so without global state."""
    figure = Chart(figsize=(width_inches, height_inches), layout="constrained")
    figure.hover = []
    FigureCanvasAgg(figure)  # measures text, for labels that keep apart
    return figure, figure.add_subplot()


def add_hover(axes: Axes, marks: Iterable[tuple[float, float, str]], radius: float) -> None:
    """Texts for marks, in data coordinates: a chart names a few settings, and the mouse the others."""
    axes.figure.hover += [Hover(axes, x, y, text, radius) for x, y, text in marks]


def number(value: float, _: int | None = None) -> str:
    """A tick for people: 8,000, 250k, 3.2M. Long numbers would run into each other."""
    for least, size, unit in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.10g}{unit}"
    return f"{value:,.10g}"


def plain_numbers(axis: Axis) -> None:
    """Numbers instead of powers of ten, once its scale is set."""
    axis.set_major_formatter(number)
    if axis.get_scale() == "log":
        axis.set_minor_formatter(lambda value, _: number(value) if f"{value:.0e}"[0] in "25" else "")


def set_title(axes: Axes, text: str) -> None:
    """The conclusion, over as many lines as it needs, of about the same length."""
    lines = -(-len(text) // _TITLE_CHARACTERS)
    width = min(_TITLE_CHARACTERS, len(text) // max(1, lines) + 8)
    axes.set_title("\n".join(textwrap.wrap(text, width)))


def set_title_at_edge(figure: Figure, text: str) -> None:
    """Where names to the left of the axes leave little room above them."""
    lines = textwrap.wrap(text, _TITLE_CHARACTERS)
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10, fontweight="bold", color=INK)


def save(figure: Figure, stem: Path, suffixes: Sequence[str]) -> list[Path]:
    """`stem`.png, `stem`.svg or `stem`.pdf, without dates."""
    paths = []
    with mpl.rc_context(RC):
        for suffix in suffixes:
            path = stem.with_suffix(suffix)
            figure.savefig(path, metadata=_METADATA[suffix])
            paths.append(path)
    if ".svg" in suffixes and getattr(figure, "hover", None):
        _write_hover(figure, stem.with_suffix(".svg"))
    return paths


def _write_hover(figure: Chart, path: Path) -> None:
    """Invisible circles with titles, on top of the picture: all viewers of SVG show a title under the mouse."""
    height = figure.get_figheight() * 72
    circles = []
    for mark in figure.hover:
        x, y = mark.axes.transData.transform((mark.x, mark.y)) * 72 / figure.dpi
        circle = f'<circle cx="{x:.2f}" cy="{height - y:.2f}" r="{mark.radius:g}"><title>{escape(mark.text)}</title>'
        circles.append(f"{circle}</circle>")
    group = f'<g fill-opacity="0">{"".join(circles)}</g>\n</svg>'
    head, _, tail = path.read_text().rpartition("</svg>")
    path.write_text(f"{head}{group}{tail}")
