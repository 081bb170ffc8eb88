"""What the peak depends on and no config says: declared, and found from the data where it is at hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.config import RunConfig
    from sweep.memory.prediction import Machine

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`length` is the longest micro-batch's, in tokens; `padded` whether a micro-batch of that length has padding,
    which makes models build a mask; `prompt_length` that of the longest prompt at evaluation."""

    micro_batch_size: int
    length: int
    padded: bool
    prompt_batch_size: int
    prompt_length: int
    from_data: bool

    def as_text(self) -> str:
        padding = "with padding" if self.padded else "without padding"
        origin = "found in the data" if self.from_data else "assumed: the data is not at hand"
        return f"{self.micro_batch_size} × {self.length} tokens, {padding} ({origin})"


def find(config: RunConfig, machine: Machine) -> Facts:
    """From the run's own data and tokenizer, where both can be read without a download; else the longest allowed."""
    train = config.train
    try:
        found = _from_data(config, machine)
    except Exception as error:  # noqa: BLE001  whatever is missing, there is an answer without it
        log.debug("no facts from the data: %s", error)
        found = None
    return found or Facts(
        micro_batch_size=train.micro_batch_size,
        length=train.max_length,
        padded=train.micro_batch_size > 1,
        prompt_batch_size=train.eval_batch_size,
        prompt_length=train.max_length,
        from_data=False,
    )


def _from_data(config: RunConfig, machine: Machine) -> Facts:
    from sweep import training

    train = config.train
    tokenizer = config.model.load_tokenizer()
    data = config.task.data.load()
    encoded = config.task.encode(tokenizer, data.train, train.max_length)
    lengths = [len(example["input_ids"]) for example in encoded]
    order = training.training_order(lengths, train, config.seed)
    if machine.kind == "cpu":
        order = order[: training.METERED_STEPS * train.batch_size]  # what the meter watches
    micro = train.micro_batch_size
    batches = [[lengths[index] for index in order[start : start + micro]] for start in range(0, len(order), micro)]
    longest = max(map(max, batches))
    prompts = _prompt_lengths(tokenizer, data.validation)
    return Facts(
        micro_batch_size=micro,
        length=longest,
        padded=any(max(batch) == longest > min(batch) for batch in batches),
        prompt_batch_size=min(train.eval_batch_size, len(prompts)),
        prompt_length=max(prompts),
        from_data=True,
    )


def _prompt_lengths(tokenizer: Any, examples: Sequence[Any]) -> list[int]:
    """Tokens of what an example gives the model at evaluation: its prompt, or its only text."""
    texts = [example.get("prompt", example.get("text")) for example in examples]
    return [len(ids) for ids in tokenizer(texts)["input_ids"]]
