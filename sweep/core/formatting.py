"""Numbers and tables as a person reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def gib(count: float) -> str:
    """Bytes for a person."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Columns of text, two spaces apart, from rows of equal length; "" for no rows.

    The columns whose numbers are in `left` (from 0) are aligned to the left, the others to the right. White space in a
    cell, such as a line break in a name, becomes one space.
    """
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
