"""Sources of examples: one file each. A source is a frozen dataclass, named by `_target_` in `conf/data/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from sweep.core.errors import alternatives
from sweep.core.reporter import Reporter


class Message(TypedDict):
    """One turn of a conversation: the speaker ("system", "user" or "assistant") and the text."""

    role: str
    content: str


class Example(TypedDict, total=False):
    """An example, by role. Each task needs some roles: a prompt and its response, a conversation, or a text (or a pair
    of texts) and its label."""

    prompt: str
    response: str
    messages: list[Message]
    text: str
    text_pair: str
    label: str


class Row(dict[str, Any]):
    """An example with the place that it was read from, for messages: "train.csv, row 58"."""

    place: str = ""


class LabelSet(str):
    """Several labels of one example, as JSON text of a list."""


def place_of(example: Mapping[str, Any], index: int) -> str:
    """Where an example was read from; without a place, its number in the split."""
    return getattr(example, "place", "") or f"example {index + 1}"


def without_role(role: str, split: str, columns: Sequence[str], instead: str = "") -> str:
    """The message for a role without a column. `columns` are those of the training split; `instead` states what would
    do instead of the role."""
    if role in columns:
        way = "; for a test split without labels, use task.data.test=null" if split == "test" else ""
        return f"no row of the {split} split has a {role}: its column {role!r} is missing, or is empty{way}"
    said = f"task.data.columns.{role} is not given, and no column is named {role!r}{instead}; "
    said += alternatives(role, [name[:40] for name in columns])
    if any(name.replace(".", "").isdecimal() or len(name) > 40 for name in columns):
        said += ". If that is a row of data instead of a header, name the columns: task.data.column_names=[…]"
    return said


ROLES = tuple(Example.__annotations__)


class Splits(NamedTuple):
    """The examples of a study. `validation` decides; `test` is empty unless the config names one. `columns` are the
    names of the source's columns, for messages about a missing role. `labels` are the names of classes in the source's
    own order, where it has one."""

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example] = ()
    columns: Sequence[str] = ()
    labels: Sequence[str] = ()

    @property
    def leaked(self) -> int:
        """How many validation examples have the same texts as a training example, whatever their answers."""
        seen = {_question(example) for example in self.train}
        return sum(_question(example) in seen for example in self.validation)


def _question(example: Example) -> str:
    asked = [example.get(role) for role in ("prompt", "text", "text_pair")]
    return repr(asked if any(asked) else example.get("messages"))


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A source of examples. It imports nothing heavy before `load`."""

    @abstractmethod
    def load(self) -> Splits:
        """Read or generate the examples. The same arguments give the same examples in the same order."""

    @property
    def train_size(self) -> int | None:
        """The number of training examples; None where it is not known before loading."""
        return None

    def faults(self) -> Iterator[tuple[str, str]]:
        """Faults of these values in combination, as (key, message)."""
        yield from ()

    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """Download missing data, and identify it. Returns facts that belong to the conditions."""
        return {}

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """This source's config, changed so that it loads exactly the data that `prepare` identified."""
        return config
