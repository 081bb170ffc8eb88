"""Local files: JSONL, JSON, CSV, TSV or Parquet, with named columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MaxLen, MinLen

from sweep.core.reporter import Reporter
from sweep.datasets.file_parsing import Layout, file_faults, read
from sweep.datasets.tabular import Tables, Tabular


class FileTable:
    """The rows of one or more files with the same columns."""

    def __init__(self, paths: Sequence[Path], layout: Layout = Layout()):  # noqa: B008  immutable
        parts = [read(path, layout) for path in paths]
        self.source = ", ".join(path.name for path in paths)
        self.columns = list(dict.fromkeys(name for part in parts for name in part.columns))
        self.labels = {name: names for part in parts for name, names in part.labels.items()}
        self._rows = [row for part in parts for row in part.rows]

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        return [self._rows[index] for index in indices]

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows]


@dataclass(frozen=True, kw_only=True)
class Files(Tabular):
    """Local files. With `skip_incomplete`, CSV lines of another number of fields are left out too."""

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    train: str | list[str]
    """File or files of the training examples."""
    validation: str | list[str] | None = None
    """File or files of the validation examples; null takes a share of the training examples."""
    test: str | list[str] | None = None
    """File or files of the test examples, which only an export reads."""
    column_names: list[str] | None = None
    """Names of the columns of CSV and TSV files without a header."""
    delimiter: Annotated[str, MinLen(1), MaxLen(1)] | None = None
    """Character between the fields of CSV and TSV files; null is the comma or the tab, or what the first line has."""
    quoted: bool | None = None
    """Whether fields may be in quotation marks; null is true for CSV and false for TSV."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for split in self.splits:
            for path in self._paths(split):
                for message in file_faults(path):
                    yield split, message
        if not self._paths("train"):
            yield "train", "names no file"

    def tables(self) -> Tables:
        return Tables(*(self._table(split) for split in self.splits))  # type: ignore[arg-type]

    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """A digest of the files' content."""
        return {"data_revision": f"sha256:{digest(p for split in self.splits for p in self._paths(split))}"}

    def _paths(self, split: str) -> list[Path]:
        value = getattr(self, split)
        names = [value] if isinstance(value, str) else value or []
        return [Path(name).expanduser().absolute() for name in names]

    def _table(self, split: str) -> FileTable | None:
        paths = self._paths(split)
        return (
            FileTable(paths, Layout(self.column_names, self.delimiter, self.quoted, self.skip_incomplete))
            if paths
            else None
        )


def digest(paths: Iterator[Path]) -> str:
    """SHA-256 over the contents of files, in the order given."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]
