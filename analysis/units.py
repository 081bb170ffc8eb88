"""Units for people, at the moment of printing."""

from __future__ import annotations

import math

_BINARY = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))
MISSING = "–"


def scale(label: str, largest: float) -> tuple[float, str]:
    """What to divide by so that `largest` reads well, and the unit's name, for a label that ends in [bytes]."""
    if not label.endswith("[bytes]"):
        return 1.0, ""
    return next(((float(size), unit) for unit, size in _BINARY if largest >= size), (1.0, "B"))


def show_bytes(count: float) -> str:
    """12582912 → "12.0 MiB"."""
    if math.isnan(count):
        return MISSING
    factor, unit = scale("[bytes]", count)
    return f"{count / factor:.1f} {unit}"


def show(value: float, pattern: str) -> str:
    """A number by a format, a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else format(value, pattern)


def show_score(mean: float, halfwidth: float) -> str:
    """0.8123 ± 0.0210; without the interval where one replicate says nothing of it."""
    if math.isnan(mean):
        return MISSING
    return f"{mean:.4f}" if math.isnan(halfwidth) else f"{mean:.4f} ± {halfwidth:.4f}"
