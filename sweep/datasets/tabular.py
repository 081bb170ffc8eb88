"""The common part of data sets with columns: columns → roles, splits by name or fraction, and a seeded selection."""

from __future__ import annotations

import json
import logging
import math
import string
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol

from annotated_types import Ge, Gt, Lt

from sweep.core.errors import UserError, alternatives
from sweep.datasets import ROLES, Dataset, Example, LabelSet, Row, Splits
from sweep.datasets.conversations import messages
from sweep.datasets.draws import permutation, stratified

log = logging.getLogger(__name__)
_MOST_CLASSES = 50


class Table(Protocol):
    """Rows with named columns. `labels` are the names of classes by column, where they are known."""

    source: str
    columns: Sequence[str]
    labels: Mapping[str, Sequence[str]]

    def __len__(self) -> int: ...

    def rows(self, indices: Sequence[int]) -> list[Mapping[str, Any]]: ...

    def column(self, name: str) -> Sequence[Any]: ...


class Tables(NamedTuple):
    """The tables of the splits. `validation` is None where it is a part of `train`."""

    train: Table
    validation: Table | None
    test: Table | None


@dataclass(frozen=True, kw_only=True)
class Tabular(Dataset):
    """A source with columns.

    A template has columns in braces: `prompt: "Instruction: {instruction}\\nResponse:"`; dots select nested values:
    `answers.text.0`. A backslash and an n in a template are a line break: on a command line they stay two characters. A
    role without a column takes the column of its own name, if there is one. All replicates have the same examples, and
    the validation set stays the same when `n_train` changes.
    """

    columns: dict[str, str | None] = field(default_factory=dict)
    """Role to column or template: text, text_pair, label, prompt, response, messages."""
    validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the training rows that become the validation set, if there is no validation split. Classes keep their
    shares."""
    n_train: Annotated[int, Ge(1)] | None = None
    """Most training rows; null is all."""
    n_validation: Annotated[int, Ge(1)] | None = None
    """Most validation rows; null is all."""
    n_test: Annotated[int, Ge(1)] | None = None
    """Most test rows; null is all."""
    split_seed: Annotated[int, Ge(0)] = 0
    """Seed that decides which rows are taken, and in which order."""
    skip_incomplete: bool = False
    """Whether rows without a needed value are left out. Otherwise they are an error."""

    @abstractmethod
    def tables(self) -> Tables:
        """Open the splits."""

    def faults(self) -> Iterator[tuple[str, str]]:
        for role, template in self.columns.items():
            if role not in ROLES:
                yield "columns", f"{role} is not a role; {alternatives(role, ROLES)}"
            if template is None:
                continue
            try:
                fields = template_fields(template)
            except ValueError as error:
                yield "columns", f"{role}: {template!r} is not a template: {error}; write a brace as {{{{"
                continue
            parts = string.Formatter().parse(template)
            formatted = any(name is not None and (spec or conversion) for _, name, spec, conversion in parts)
            if formatted or any(not name.strip() or set(name) & set("[]") for name in fields):
                yield "columns", f"{role}: {template!r} must have names of columns only between its braces"

    def load(self) -> Splits:
        tables = self.tables()
        order = permutation(len(tables.train), self.split_seed)
        if tables.validation is None:
            apart = max(1, round(self.validation_fraction * len(order)))
            if apart >= len(order):
                raise UserError(
                    f"{tables.train.source} has too few rows, {len(order)}, to take a validation split from them"
                )
            drawn = stratified(order, self._classes(tables.train), apart)
            validation = self._examples(tables.train, drawn, self.n_validation)
            taken = set(drawn)
            order = [index for index in order if index not in taken]
        else:
            validation = self._drawn(tables.validation, self.n_validation)
        test = () if tables.test is None else self._drawn(tables.test, self.n_test)
        train = self._examples(tables.train, order, self.n_train)
        labels = tables.train.labels.get(self.columns.get("label") or "label", ())
        return Splits(
            train=train, validation=validation, test=test, columns=tuple(tables.train.columns), labels=tuple(labels)
        )

    def _classes(self, table: Table) -> list[str] | None:
        """The label of each row, to draw a split with all classes in it; None where rows have no labels, or too many
        different ones to be classes."""
        name = self.columns.get("label") or "label"
        if name not in table.columns:
            return None
        labels = list(map(str, table.column(name)))
        return labels if len(set(labels)) <= _MOST_CLASSES else None

    def _drawn(self, table: Table, count: int | None) -> list[Example]:
        return self._examples(table, permutation(len(table), self.split_seed), count)

    def _examples(self, table: Table, indices: Sequence[int], count: int | None) -> list[Example]:
        """The first `count` rows at `indices`."""
        if not indices:
            raise UserError(f"{table.source} is empty: it has no rows")
        templates = {role: name for role, name in self.columns.items() if name}
        for role, template in templates.items():
            for name in _names(template):
                if name not in table.columns and name.partition(".")[0] not in table.columns:
                    raise UserError(
                        f"task.data.columns.{role} = {template}: {table.source} has no column {name!r}; "
                        f"{alternatives(name, [column[:80] for column in table.columns])}"
                    )
        if not self.skip_incomplete:
            indices = indices[:count]
        rows = table.rows(indices)
        same = {role: role for role in ROLES if any(row.get(role) is not None for row in rows)}
        wanted = {**{role: name for role, name in same.items() if role not in templates}, **templates}
        examples, skipped = [], 0
        for index, row in zip(indices, rows, strict=True):
            values = {name: _value(row, name) for template in wanted.values() for name in _names(template)}
            missing = next((name for name, value in values.items() if value is None), None)
            if missing is None and "label" in wanted and not str(values.get(wanted["label"], "-")).strip():
                missing = wanted["label"]
            if missing is None:
                examples.append(_example(wanted, values, f"{table.source}, row {index + 1}"))
            elif self.skip_incomplete:
                skipped += 1
            else:
                if all(_value(row, missing) is None for row in rows):
                    way = "a test split without labels cannot be scored: task.data.test=null"
                    raise UserError(f"{table.source}: column {missing!r} has no value in any row; {way}")
                raise UserError(
                    f"{table.source}, row {index + 1}: column {missing!r} has no value. Correct the row, or skip "
                    "such rows: task.data.skip_incomplete=true"
                )
        if skipped:
            log.warning("%s: %d rows without a value in a needed column are skipped", table.source, skipped)
        if not examples:
            raise UserError(f"{table.source}: no row has a value in each of: {', '.join(sorted(wanted.values()))}")
        return examples[:count]


def template_fields(template: str) -> list[str]:
    """The names of columns in a template; none where the text is a column's name itself."""
    fields = string.Formatter().parse(template) if "{" in template else ()
    return [name for _, name, _, _ in fields if name is not None]


def _names(template: str) -> list[str]:
    return template_fields(template) or [template]


def _value(row: Mapping[str, Any], name: str) -> Any:
    """The value in a column, or nested in it: "answers.text.0" is the first of the texts in answers. None for a missing
    one, also where it is stored as the number NaN."""
    found: Any = row
    for part in [name] if name in row else name.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return None if isinstance(found, float) and math.isnan(found) else found


def _example(wanted: Mapping[str, str], values: Mapping[str, Any], place: str) -> Example:
    example = Row()
    example.place = place
    try:
        for role, template in wanted.items():
            if role == "messages":
                example[role] = messages(values[template])
                continue
            texts = {name: _text(role, name, values[name]) for name in _names(template)}
            if isinstance(texts.get(template), LabelSet):
                example[role] = texts[template]
                continue
            parts = string.Formatter().parse(template) if template_fields(template) else [("", template, "", "")]
            example[role] = "".join(
                text.replace("\\n", "\n") + ("" if name is None else texts[name]) for text, name, _, _ in parts
            )
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return example  # type: ignore[return-value]


def _text(role: str, name: str, value: Any) -> str:
    """Raises UserError for a list, an object or bytes, whose text would be Python's notation of it. A list of labels
    is a LabelSet."""
    if role == "label" and isinstance(value, list | tuple) and all(isinstance(one, str | int | float) for one in value):
        return LabelSet(json.dumps([str(one) for one in value], ensure_ascii=False))
    if not isinstance(value, list | tuple | Mapping | bytes | bytearray):
        return str(value)
    if isinstance(value, Mapping):
        inner = [f"{name}.{key}" for key in value]
        fix = f"name a value in it: task.data.columns.{role}={inner[0] if inner else name + '.key'}"
    elif isinstance(value, bytes | bytearray):
        fix = "write text"
    else:
        fix = f"name one of its values (task.data.columns.{role}={name}.0), or join them to a text in the data"
    kind = {"dict": "objects", "list": "lists", "tuple": "lists"}.get(type(value).__name__, type(value).__name__)
    raise UserError(f"column {name!r}, the {role}, holds {kind}: {str(value)[:80]}; {fix}")
