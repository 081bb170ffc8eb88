"""Labels as values: "0.0" and "0" are one class, and so are "good" and "good " (with a space)."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from sweep.core.errors import UserError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_UNLABELLED = "-1"  # in the test sets of competitions
_SHOWN = 5


def value_of(label: str) -> str:
    """One text for each value: numbers without needless digits, other labels without white space at their ends."""
    text = label.strip()
    if not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text).normalize()
    return f"{number:f}" if number else "0"


def require_distinct(labels: Iterable[str]) -> None:
    """Raises UserError where two labels differ in upper and lower case only."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[label.casefold()].append(label)
    twice = next((found for found in spellings.values() if len(found) > 1), None)
    if twice is not None:
        raise UserError(
            f"the labels {listed(twice)} differ in upper and lower case only, and would be {len(twice)} classes. Write "
            "them alike, or name all labels in task.labels where they are different classes"
        )


def require_shared(counts: Mapping[str, Counter[str]]) -> None:
    """`counts` are of labels, by split. Raises UserError where the validation's classes are not those of the training,
    and where the test split has no labels."""
    train, validation, test = (counts.get(name, Counter()) for name in ("train", "validation", "test"))
    strange = {label: count for label, count in validation.items() if label not in train}
    if 2 * sum(strange.values()) >= sum(validation.values()):
        raise UserError(
            f"{sum(strange.values())} of {sum(validation.values())} validation examples have a label that no training "
            f"example has ({listed(strange)}); the training's are {listed(train)}. A model cannot answer them: are the "
            "labels written alike in both?"
        )
    if _UNLABELLED in test and _UNLABELLED not in {*train, *validation}:
        raise UserError(
            f"{test[_UNLABELLED]} of {sum(test.values())} test examples have the label {_UNLABELLED}, which no "
            "training or validation example has: the test split is unlabelled, and cannot be scored. Use "
            "task.data.test=null"
        )


def remarks(counts: Mapping[str, Counter[str]], labels: Sequence[str]) -> Iterator[str]:
    """A sentence for each kind of class that cannot be learnt, or not be measured."""
    train, validation, test = (counts.get(name, Counter()) for name in ("train", "validation", "test"))
    for examples, split, without, effect in (
        (validation, "validation", train, "training: the model cannot learn them"),
        (train, "training", validation, "validation: the score does not measure them"),
        (test, "test", {*train, *validation}, "training or validation: the model has no output for them"),
    ):
        found = [label for label in examples if label not in without]
        if found:
            yield f"the labels {listed(found)} of the {split} split occur nowhere in {effect}"
    empty = [label for label in labels if label not in {*train, *validation}]
    if empty:
        yield f"the labels {listed(empty)} have no example"


def head_order(labels: Sequence[str], head: Mapping[int, str]) -> list[str] | None:
    """The labels in the order of a head's names (by index), case aside; None where the names are others. The names
    LABEL_0, LABEL_1, … stand for numbers."""
    by_name = {label.casefold(): label for label in labels}
    names = [value_of(str(head[index])).casefold() for index in sorted(head)]
    if sorted(names) != sorted(by_name):
        names = [name.removeprefix("label_") for name in names]
    return [by_name[name] for name in names] if sorted(names) == sorted(by_name) else None


def listed(labels: Iterable[str]) -> str:
    """The first labels, quoted."""
    found = [repr(label) for label in labels]
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
