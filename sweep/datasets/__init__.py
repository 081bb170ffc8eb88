"""Where examples come from: one file per source. A source is a frozen dataclass named by `_target_` in `conf/data/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict


class Example(TypedDict):
    """One prompt and the response that is to follow it."""

    prompt: str
    response: str


class Splits(NamedTuple):
    """The examples of a study. `validation` decides."""

    train: Sequence[Example]
    validation: Sequence[Example]


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A source of examples. Nothing heavy is imported before `load`."""

    @abstractmethod
    def load(self) -> Splits:
        """Read or generate the examples. The same arguments give the same examples in the same order."""

    @property
    def train_size(self) -> int | None:
        """The number of training examples where it is known before loading, else None."""
        return None

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with these values together, as (key, message)."""
        yield from ()
