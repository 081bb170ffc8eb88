"""SCAN (Lake & Baroni 2018, arXiv 1711.00350): commands such as "walk around right twice", and their actions.

The whole data set, 20,910 pairs, follows from its grammar, so it is generated instead of downloaded. The template split
"around right" (Loula et al. 2018, arXiv 1807.07545) separates every command that contains "around right": a base model
learns the 15,225 others, and fine-tuning adapts it to the 5,685 that it has not seen.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from annotated_types import Ge

from sweep.datasets import Dataset, Example, Splits

# Digest of the sorted lines "IN: … OUT: …\n", which equal the published tasks.txt.
PUBLISHED_SHA256 = "6be4b39bc8bf3a20be810b6991250d0493e608560609db6765dd679e1ed1c98e"

VERBS = ("walk", "look", "run", "jump")
TURNS = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}
TEMPLATE = "around right"
ARROW = "=>"  # separates command and actions


def _phrases() -> Iterator[tuple[str, list[str]]]:
    """V in the grammar: one movement, with a direction or without."""
    for verb in VERBS:
        yield verb, [f"I_{verb.upper()}"]
    for verb in ("turn", *VERBS):
        act = [] if verb == "turn" else [f"I_{verb.upper()}"]
        for direction, turn in TURNS.items():
            yield f"{verb} {direction}", [turn, *act]
            yield f"{verb} opposite {direction}", [turn, turn, *act]
            yield f"{verb} around {direction}", [turn, *act] * 4


def _sentences() -> Iterator[tuple[str, list[str]]]:
    """S in the grammar: a movement once, twice or thrice."""
    for words, actions in _phrases():
        yield words, actions
        yield f"{words} twice", actions * 2
        yield f"{words} thrice", actions * 3


@cache
def pairs() -> tuple[tuple[str, str], ...]:
    """All (command, actions) pairs, sorted by command; words are separated by single spaces."""
    sentences = list(_sentences())
    commands = dict(sentences)
    for first, first_actions in sentences:
        for second, second_actions in sentences:
            commands[f"{first} and {second}"] = first_actions + second_actions
            commands[f"{first} after {second}"] = second_actions + first_actions
    return tuple((command, " ".join(commands[command])) for command in sorted(commands))


def digest() -> str:
    """SHA-256 of the sorted data set in its published form."""
    lines = sorted(f"IN: {command} OUT: {actions}\n" for command, actions in pairs())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def vocabulary() -> list[str]:
    """Every word of the data set, commands first, each part sorted."""
    words = {word for command, _ in pairs() for word in command.split()}
    actions = {word for _, actions in pairs() for word in actions.split()}
    return sorted(words) + sorted(actions)


def as_example(pair: tuple[str, str]) -> Example:
    command, actions = pair
    return {"prompt": f"{command} {ARROW}", "response": actions}


def base_examples() -> list[Example]:
    """The 15,225 commands without "around right": what the base model is pretrained on."""
    return [as_example(pair) for pair in pairs() if TEMPLATE not in pair[0]]


def adaptation_examples() -> list[Example]:
    """The 5,685 commands with "around right"."""
    return [as_example(pair) for pair in pairs() if TEMPLATE in pair[0]]


@dataclass(frozen=True, kw_only=True)
class ScanAroundRight(Dataset):
    """A fixed draw from the 5,685 "around right" commands, the same for all replicates.

    The validation set is drawn first, so that it stays the same when `n_train` changes.
    """

    n_train: Annotated[int, Ge(1)] = 2000
    """Number of training examples."""
    n_validation: Annotated[int, Ge(1)] = 400
    """Number of validation examples."""
    split_seed: Annotated[int, Ge(0)] = 0
    """Seed of the draw."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.n_train + self.n_validation > 5685:
            available = 'the 5685 commands with "around right"'
            yield "n_train", f"with n_validation = {self.n_validation} is more than {available}; lower one of them"

    @property
    def train_size(self) -> int:
        return self.n_train

    def load(self) -> Splits:
        found = digest()
        if found != PUBLISHED_SHA256:
            raise RuntimeError(
                f"the generated SCAN data has SHA-256 {found}, the published one {PUBLISHED_SHA256}: "
                "sweep/datasets/scan.py has been changed, and scores would not be comparable"
            )
        examples = adaptation_examples()
        random.Random(self.split_seed).shuffle(examples)
        validation = examples[: self.n_validation]
        train = examples[self.n_validation : self.n_validation + self.n_train]
        return Splits(train=train, validation=validation)
