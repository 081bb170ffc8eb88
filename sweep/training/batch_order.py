"""The order of the training examples: the same for all variants."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.training.options import Train

LONGEST_AT_STEP = 1  # counted from 0


def training_order(lengths: Sequence[int], train: Train, seed: int) -> list[int]:
    """Indices of the examples, whose `lengths` are in tokens, in the order of training: `max_steps` × `batch_size`.

    Every pass is a new permutation. With `group_by_length`, examples of similar length share a micro-batch (sorted
    inside windows of 16 micro-batches), which needs less padding. Then the longest micro-batch is exchanged with the
    last one of the second step: out of memory happens early, and the memory meter measures the peak.
    """
    generator = random.Random(seed)
    batches: list[list[int]] = []
    per_step = train.gradient_accumulation_steps * train.devices_per_run
    needed = train.max_steps * per_step
    while len(batches) < needed:
        batches.extend(_one_pass(lengths, train.micro_batch_size, train.group_by_length, generator))
    batches = batches[:needed]
    longest = max(range(needed), key=lambda b: (max(lengths[i] for i in batches[b]), -b))
    early = min(LONGEST_AT_STEP, train.max_steps - 1) * per_step + per_step - 1
    batches[early], batches[longest] = batches[longest], batches[early]
    return [index for batch in batches for index in batch]


def _one_pass(lengths: Sequence[int], micro: int, grouped: bool, generator: random.Random) -> Iterator[list[int]]:
    permutation = list(range(len(lengths)))
    generator.shuffle(permutation)
    whole = len(permutation) // micro * micro
    window = micro * 16 if grouped else micro
    for start in range(0, whole, window):
        part = permutation[start : min(start + window, whole)]
        if grouped:
            part.sort(key=lambda index: lengths[index])
        batches = [part[i : i + micro] for i in range(0, len(part), micro)]
        generator.shuffle(batches)
        yield from batches
