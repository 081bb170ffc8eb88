"""Tables from files: JSONL, JSON, CSV, TSV and Parquet; all but Parquet also with gzip. Errors name the file and the
line."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sweep.core.errors import UserError, alternatives

log = logging.getLogger(__name__)
# Byte order marks. The longer ones come first: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAVED = ("dataset_dict.json", "state.json")  # in folders of `datasets.save_to_disk`
_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_FIELD = 2**30  # bytes; the csv module stops at 128 kB otherwise


class Rows(NamedTuple):
    """Names of columns, and one mapping per row. `labels` are the names of classes by column, in order, where the file
    has them."""

    columns: list[str]
    rows: list[dict[str, Any]]
    labels: Mapping[str, Sequence[str]] = {}


class Layout(NamedTuple):
    """What a CSV or TSV file does not say about its format.

    `column_names` are for a file without a header. `delimiter` separates the fields (None: that of the ending, or where
    the first line has one field by it, another common one that it has). `quoted` states whether fields may be in
    quotation marks (None: yes in CSV; no in TSV, where a quotation mark is an ordinary character, as in GLUE's files,
    which have unpaired ones). With `skip_malformed`, lines with another number of fields than columns are skipped, and
    a warning counts them."""

    column_names: Sequence[str] | None = None
    delimiter: str | None = None
    quoted: bool | None = None
    skip_malformed: bool = False


def read(path: Path, layout: Layout = Layout()) -> Rows:  # noqa: B008  immutable
    """All rows of one file. Its ending decides the format. Raises UserError where a line cannot be read."""
    reader = format_of(path)
    if reader is None:
        raise UserError(f"{path}: the format '{path.suffix}' is not supported; {_known()}")
    try:
        rows = reader(path, layout)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows.rows:
        raise UserError(f"{path} is empty: it has no rows")
    return rows


def read_text(path: Path) -> str:
    """The file as text: UTF-8, or what its byte order mark states. Raises UserError, with line and byte, where it is
    not."""
    content = path.read_bytes()
    if path.suffix.lower() == _PACKED:
        content = gzip.decompress(content)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not {encoding.upper()}. Convert the file, for "
            f"example: iconv -f cp1252 -t utf-8 {path.name} (Western Windows files; cp949 for older Korean, gb18030 "
            "for Chinese ones)"
        ) from error


def _jsonl(path: Path, _: Layout) -> Rows:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: is not JSON: {error}") from error
            rows.append(_object(path, f"line {number}", value))
    return _from_mappings(rows)


def _json(path: Path, _: Layout) -> Rows:
    """A list of objects, also as the only list in an object ({"version": …, "data": […]}), or JSONL with the wrong
    ending."""
    text = read_text(path)
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            raise UserError(f"{path}, line {getattr(error, 'lineno', 1)}: is not JSON: {error}") from error
        return _jsonl(path, Layout())
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list):
        raise UserError(f"{path}: is {type(found).__name__}, and not a list of objects")
    rows = [_object(path, f"entry {i}", entry) for i, entry in enumerate(found, start=1)]
    return _from_mappings(_questions(rows) if all(isinstance(row.get("paragraphs"), list) for row in rows) else rows)


def _questions(articles: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """SQuAD's published form (articles with paragraphs with questions) in the columns that it has on the Hub."""
    return [
        {
            "title": article.get("title"),
            "context": paragraph.get("context"),
            "question": asked.get("question"),
            "answers": {"text": [answer.get("text") for answer in asked.get("answers", [])]},
        }
        for article in articles
        for paragraph in article["paragraphs"]
        for asked in paragraph.get("qas", [])
    ]


def _object(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}, {where}: is {type(value).__name__}, not an object with named columns")
    return value


def _from_mappings(rows: list[dict[str, Any]]) -> Rows:
    return Rows(list(dict.fromkeys(key for row in rows for key in row)), rows)


def _delimited(path: Path, layout: Layout, *, delimiter: str, quoted: bool) -> Rows:
    """Rows of a delimited file. Quoted fields may contain delimiters and line ends. `quoted` is the format's default
    for `layout.quoted`."""
    csv.field_size_limit(_LONGEST_FIELD)
    text = read_text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path}, line {line}: holds a NUL character. For a UTF-16 file without its mark: iconv -f utf-16le -t "
            f"utf-8 {path.name}"
        )
    named = re.match(r"sep=(.)\r?\n", text)  # Excel's first line
    text = "\n" + text[named.end() :] if named else text
    quoted = quoted if layout.quoted is None else layout.quoted
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    delimiter = layout.delimiter or (named[1] if named else _found_in(text, delimiter, len(layout.column_names or ())))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, quoting=quoting)
    rows = []
    malformed = 0
    names = list(layout.column_names or ())
    try:
        for fields in reader:
            if not fields:
                continue
            if not names:
                names = _distinct(fields)
            elif len(fields) != len(names) and layout.skip_malformed:
                malformed += 1
            elif len(fields) != len(names):
                raise UserError(
                    f"{path}, line {reader.line_num}: has {len(fields)} fields, and the columns are {len(names)}: "
                    f"{', '.join(name[:40] for name in names)}. Correct it, or skip such lines: "
                    "task.data.skip_incomplete=true"
                )
            else:
                rows.append(dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if malformed:
        log.warning("%s: %d lines with another number of fields are skipped", path, malformed)
    return Rows(names, rows)


def _found_in(text: str, usual: str, columns: int) -> str:
    """The delimiter of the first line: the usual one, unless the line has another one only. `columns` is their number
    where it is known, else 0."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if usual in first or columns == 1:
        return usual
    return next((mark for mark in _DELIMITERS if mark in first and first.count(mark) + 1 >= columns), usual)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names of columns; one that is empty or occurs twice gets a number: a file may have such columns besides those
    that are asked for."""
    counts = Counter(names)
    seen: Counter[str] = Counter()
    distinct = []
    for number, name in enumerate(names, start=1):
        seen[name] += 1
        distinct.append(f"column {number}" if not name else f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return distinct


def _parquet(path: Path, _: Layout) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    names = class_labels(table.schema.metadata)
    rows = table.to_pylist()
    for column, labels in names.items():
        for row in rows:
            row[column] = label_name(row.get(column), labels)
    return Rows(table.column_names, rows, names)


def class_labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of labels by column, from the Hugging Face Hub's metadata in Parquet files whose labels are numbers."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    kept = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    return {column: names for column, names in kept.items() if isinstance(names, list)}


def label_name(value: Any, labels: Sequence[str]) -> Any:
    """The name of a label by its number; None for a number without a name: unlabelled test sets contain -1."""
    if not isinstance(value, int):
        return value
    return labels[value] if 0 <= value < len(labels) else None


FORMATS: dict[str, Callable[[Path, Layout], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": partial(_delimited, delimiter=",", quoted=True),
    ".tsv": partial(_delimited, delimiter="\t", quoted=False),
    ".parquet": _parquet,
}
_PACKED = ".gz"


def format_of(path: Path) -> Callable[[Path, Layout], Rows] | None:
    """The reader for a file with this name; None for an unsupported format."""
    packed = path.suffix.lower() == _PACKED
    ending = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    return None if packed and ending == ".parquet" else FORMATS.get(ending)


def endings() -> list[str]:
    """The endings of the supported formats."""
    return [*FORMATS, *(f"{ending}{_PACKED}" for ending in FORMATS if ending != ".parquet")]


def file_faults(path: Path) -> Iterator[str]:
    """Faults of a file that are visible without reading it."""
    if path.is_dir():
        saved = any((path / name).is_file() for name in SAVED)
        yield (
            f"was written by save_to_disk; use data@task.data=hub task.data.path={path}"
            if saved
            else ("is a folder; name a file in it")
        )
    elif not path.exists():
        names = [f.name for f in path.parent.iterdir() if f.is_file()] if path.parent.is_dir() else []
        yield f"does not exist; in {path.parent} {alternatives(path.name, sorted(names)[:20])}"
    elif format_of(path) is None:
        yield f"has a format that is not supported; {_known()}"


def _known() -> str:
    return f"give one of {', '.join(FORMATS)}, or with gzip ({next(iter(FORMATS))}{_PACKED}) one of those but Parquet"
