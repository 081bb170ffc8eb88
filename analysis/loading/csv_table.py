"""A CSV file as people have it → cells of text, and cells → numbers: separators, encodings, decimal commas."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from sweep.core.errors import UserError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes a cell that begins so
SHOWN = 5  # faults of one kind that a message lists
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DECLARED = re.compile(r'^"?sep=(.)"?\s*$')  # a spreadsheet's own first line
_MISSING = ("", "nan", "na", "n/a", "null", "none", "-", "–")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")  # 36,200 may be 36.2 or 36200


def read(path: Path, wanted: Collection[str]) -> pd.DataFrame:
    """All cells as text, indexed by the line of the file, without empty lines. The separator is the one that gives most
    of the `wanted` columns.

    Raises:
        UserError: for a file that is not a table. The message names lines and columns.
    """
    text = _text(path)
    declared = _DECLARED.match(text.partition("\n")[0])
    skipped = 1 if declared else 0
    lines = text.splitlines(keepends=True)[skipped:]
    first = next((line for line in lines if line.strip()), "")
    separator = declared[1] if declared else _separator(first, wanted)
    reader = csv.reader(io.StringIO("".join(lines), newline=""), strict=True, delimiter=separator)
    try:
        rows = [(reader.line_num + skipped, [_unescaped(cell.strip()) for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} could not be read as CSV: {error}") from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise UserError(f"{path} is empty: it needs a header ({', '.join(wanted)}, …) and rows")
    (_, header), *body = rows
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(f"{path} has more than one column {', '.join(map(repr, twice))}")
    if wrong := [(line, row) for line, row in body if len(row) != len(header)]:
        shown = [f"line {line} has {len(row)} cells, the header {len(header)}" for line, row in wrong[:SHOWN]]
        hint = f"The cells were separated by {_SEPARATORS.get(separator, repr(separator))}"
        hint += "; write decimal points, not decimal commas, or put quotes around them." if separator == "," else "."
        raise UserError(f"{path} has rows that cannot be read:\n" + "\n".join(f"  {one}" for one in [*shown, hint]))
    named = [place for place, name in enumerate(header) if name or any(row[place] for _, row in body)]
    return pd.DataFrame(
        [[row[place] for place in named] for _, row in body],
        columns=[header[place] or f"column {place + 1}" for place in named],
        index=[line for line, _ in body],
        dtype=object,
    )


def _unescaped(cell: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from computing a text."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror}") from error
    encoding = next((name for bom, name in _BOMS.items() if content.startswith(bom)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not in UTF-8 (line {line}): save it as UTF-8; Excel calls that 'CSV UTF-8'"
        ) from error


def _separator(header: str, wanted: Collection[str]) -> str:
    """The first of those that give the most known columns, then the most columns."""

    def quality(separator: str) -> tuple[int, int]:
        names = [cell.strip().strip('"') for cell in header.split(separator)]
        return sum(name in names for name in wanted), len(names)

    return max(_SEPARATORS, key=quality)


def numbers(text: pd.Series, rule: str, faults: list[str]) -> pd.Series:
    """Cells as numbers; empty cells and "nan" are missing. A comma is a decimal comma unless it may stand between
    groups of digits in every cell that has one: such a column is a fault, as is every other text. `rule` states what
    the column must hold."""
    given = text.where(~text.str.lower().isin(_MISSING))
    commas = given[given.str.contains(",", na=False)]
    decimal = commas[commas.map(lambda cell: bool(_DECIMAL_COMMA.fullmatch(cell)))]
    if len(decimal) == len(commas) and (commas.map(_GROUPS.fullmatch).isna()).any():
        given = given.where(~given.index.isin(commas.index), given.str.replace(",", "."))
    number = pd.to_numeric(given, errors="coerce").replace([np.inf, -np.inf], np.nan)
    faults += cell_faults(text, given.notna() & number.isna(), f"is not a plain number: {rule}")
    return number


def cell_faults(column: pd.Series, wrong: pd.Series, message: str) -> list[str]:
    """A line for each of the first wrong cells, and how many more there are."""
    cells = {line: column[line] for line in column.index[wrong][:SHOWN]}
    texts = {line: repr(cell) if isinstance(cell, str) else f"{cell:g}" for line, cell in cells.items()}
    shown = [f"line {line}: {column.name} = {text} {message}" for line, text in texts.items()]
    rest = int(wrong.sum()) - SHOWN
    return [*shown, f"and {rest} more in {column.name}"] if rest > 0 else shown
