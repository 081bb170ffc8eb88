"""Numbers with units, as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BINARY = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))
MISSING = "–"
FEW = 6  # names in a sentence


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
    return f"{count / factor:.{2 if unit == 'GiB' else 1}f} {unit}"


def show(value: float, pattern: str) -> str:
    """A number by a format, a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else format(value, pattern)


def show_score(mean: float, low: float, high: float) -> str:
    """0.8123 (0.791 to 0.833): the interval is of the true score; without it where there is none."""
    if math.isnan(mean):
        return MISSING
    return f"{mean:.4f}" if math.isnan(low) or math.isnan(high) else f"{mean:.4f} ({low:.3f} to {high:.3f})"


def percent(chance: float) -> str:
    """A chance in whole per cent. The ends are not certain: they are draws of a simulation."""
    if math.isnan(chance):
        return MISSING
    return "> 99%" if chance > 0.995 else "< 1%" if chance < 0.005 else f"{chance:.0%}"


def change(value: float, reference: float) -> str:
    """ "33% less", "12% more", "the same", relative to `reference`."""
    if not reference or math.isnan(value) or math.isnan(reference):
        return MISSING
    share = value / reference - 1
    if abs(share) < 0.0005:
        return "the same"
    size = f"{abs(share):.0%}" if abs(share) >= 0.095 else f"{abs(share):.1%}"
    return f"{size} {'more' if share > 0 else 'less'}"


def few(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    rest = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {rest} more" if rest > 0 else "")
