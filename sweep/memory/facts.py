"""What the peak depends on and no config says, the shapes of batches above all: found in the data where it is at hand,
else declared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.config import RunConfig
    from sweep.memory.prediction import Machine
    from sweep.tasks import Encoded, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The longest micro-batch of a run, as encoded `rows` for the collator of `task`, and the shape of evaluation.

    `length` is in tokens; `padded` whether a micro-batch of that length has padding, which makes models build a mask;
    `prompt_length` that of the longest prompt at evaluation.
    """

    micro_batch_size: int
    length: int
    padded: bool
    prompt_batch_size: int
    prompt_length: int
    from_data: bool
    rows: Sequence[Encoded] = field(default=(), compare=False, repr=False)
    task: Task | None = field(default=None, compare=False, repr=False)
    tokenizer: Any = field(default=None, compare=False, repr=False)

    def as_text(self) -> str:
        padding = "with padding" if self.padded else "without padding"
        origin = "found in the data" if self.from_data else "assumed: the data is not at hand"
        return f"{self.micro_batch_size} × {self.length} tokens, {padding} ({origin})"


def find(config: RunConfig, machine: Machine) -> Facts:
    """From the run's own data and tokenizer, where both can be read without a download; else the longest allowed."""
    try:
        return _from_data(config, machine)
    except Exception as error:  # noqa: BLE001  whatever is missing, there is an answer without it
        log.debug("no facts from the data: %s", error)
    return declared(config, length=config.train.max_length, padded=config.train.micro_batch_size > 1)


def declared(config: RunConfig, *, length: int, padded: bool) -> Facts:
    """Every micro-batch as long as `length` tokens, and every prompt too."""
    task, tokenizer = config.task.without_data(), StandInTokenizer()
    rows = task.encode(tokenizer, [example(length // 2, length)] * config.train.micro_batch_size, length)
    return Facts(
        micro_batch_size=config.train.micro_batch_size,
        length=length,
        padded=padded,
        prompt_batch_size=config.train.eval_batch_size,
        prompt_length=length,
        from_data=False,
        rows=rows,
        task=task,
        tokenizer=tokenizer,
    )


def _from_data(config: RunConfig, machine: Machine) -> Facts:
    from sweep import training

    tokenizer = config.model.load_tokenizer()
    data = config.task.data.load()
    task = config.task.bind(data)
    encoded = task.encode(tokenizer, data.train, config.train.max_length)
    train = config.train.with_steps(len(encoded))
    lengths = [training.length(row) for row in encoded]
    order = training.training_order(lengths, train, config.seed)
    if machine.kind == "cpu":
        order = order[: training.METERED_STEPS * train.batch_size]  # what the meter watches
    micro = train.micro_batch_size
    batches = [order[start : start + micro] for start in range(0, len(order), micro)]

    def size(batch: Sequence[int]) -> tuple[int, bool]:
        longest = max(lengths[index] for index in batch)
        return longest, any(lengths[index] < longest for index in batch)

    worst = max(batches, key=size)
    length, padded = size(worst)
    texts = [row.get("prompt", row.get("text")) for row in data.validation]
    prompts = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    return Facts(
        micro_batch_size=micro,
        length=length,
        padded=padded,
        prompt_batch_size=min(train.eval_batch_size, len(prompts)),
        prompt_length=max(prompts),
        from_data=True,
        rows=[encoded[index] for index in worst],
        task=task,
        tokenizer=tokenizer,
    )


class StandInTokenizer:
    """Texts are numbers here, and stand for as many tokens: lengths are all that memory depends on."""

    pad_token_id = pad_token_type_id = eos_token_id = bos_token_id = 0
    model_max_length = 10**9
    chat_template = None

    def __call__(self, text: Sequence[str], text_pair: Any = None, **kwargs: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * int(number) for number in text]}

    def batch_decode(self, ids: Sequence[Any], **kwargs: Any) -> list[str]:
        return [""] * len(ids)


def example(prompt: int, whole: int) -> dict[str, str]:
    """An example for the stand-in: a prompt and a response that end at `whole` tokens with the end token, or a text."""
    return {"prompt": str(prompt), "response": str(whole - prompt - 1), "text": str(whole), "label": "0"}
