"""The shapes of a run's batches, which its peak memory depends on: found in the data where that is available, else
assumed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweep.core.errors import UserError
from sweep.datasets import Example
from sweep.tasks import IGNORED
from sweep.tasks.lengths import usual_length

if TYPE_CHECKING:
    from sweep.config.schema import RunConfig
    from sweep.memory.prediction import Machine
    from sweep.tasks import Encoded, Task

log = logging.getLogger(__name__)
_NO_LIMIT = 10**9  # tokens


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The longest micro-batch of a run, as encoded `rows` for the collator of `task`, and the shape of evaluation.

    `length` is in tokens. `padded` states whether a micro-batch of that length has padding: models then build a mask.
    `prompt_length` is the length of the longest prompt at evaluation, in tokens. `of_seed` is the run's seed where the
    seed decides which examples are used: where training is shorter than one pass over the data.
    """

    micro_batch_size: int
    length: int
    padded: bool
    prompt_batch_size: int
    prompt_length: int
    from_data: bool
    of_seed: int | None = field(default=None, compare=False, repr=False)
    rows: Sequence[Encoded] = field(default=(), compare=False, repr=False)
    task: Task | None = field(default=None, compare=False, repr=False)
    tokenizer: Any = field(default=None, compare=False, repr=False)

    def as_text(self) -> str:
        padding = "with padding" if self.padded else "without padding"
        origin = "found in the data" if self.from_data else "assumed: the data is not available"
        return f"{self.micro_batch_size} × {self.length} tokens, {padding} ({origin})"


def find(config: RunConfig, machine: Machine) -> Workload:
    """The workload in the run's own data, where data and tokenizer need no download; else the longest allowed one."""
    try:
        return _from_data(config, machine)
    except Exception as error:  # noqa: BLE001  without the data there is still an answer
        log.debug("the data gives no workload: %s", error)
    if config.train.max_length is None:
        raise UserError(
            "train.max_length is null, and the data that decides it is not on this machine; give a length in tokens"
        )
    return declared(config, length=config.train.max_length, padded=config.train.micro_batch_size > 1)


def declared(config: RunConfig, *, length: int, padded: bool) -> Workload:
    """A workload in which every micro-batch and every prompt has `length` tokens; so have both texts of a seq2seq
    task."""
    task, tokenizer = _plain(config.task).without_data(), StandInTokenizer()
    longest = example(length, 2 * length + 1) if task.task_type == "SEQ_2_SEQ_LM" else example(length // 2, length)
    row = task.encode(tokenizer, [longest], length)[0]
    return Workload(
        micro_batch_size=config.train.micro_batch_size,
        length=length,
        padded=padded,
        prompt_batch_size=config.train.eval_batch_size,
        prompt_length=length,
        from_data=False,
        rows=[row] * config.train.micro_batch_size,
        task=task,
        tokenizer=tokenizer,
    )


def _plain(task: Task) -> Task:
    """The task without features that the stand-in tokenizer lacks: chat templates, which add some tokens, and packing,
    which fills rows up to the longest length. That length is assumed anyway."""
    return dataclasses.replace(task, **{key: False for key in ("apply_chat_template", "packing") if hasattr(task, key)})


def _from_data(config: RunConfig, machine: Machine) -> Workload:
    from sweep.training.batch_order import training_order
    from sweep.training.fit import length
    from sweep.training.watcher import is_metered

    with _offline():
        tokenizer = config.model.load_tokenizer()
        data = config.task.data.load()
    task = config.task.bind(data)
    max_length = (
        config.train.max_length or usual_length(task, tokenizer, data.train, config.model.architecture()).tokens
    )
    encoded = task.encode(tokenizer, data.train, max_length)
    train = config.train.with_steps(len(encoded))
    lengths = [length(row) for row in encoded]
    order = training_order(lengths, train, config.seed)
    micro = train.micro_batch_size
    batches = [order[start : start + micro] for start in range(0, len(order), micro)]
    if machine.kind == "cpu":  # the CPU's meter measures some steps only
        accumulated = train.gradient_accumulation_steps
        batches = [batch for index, batch in enumerate(batches) if is_metered(index // accumulated + 1)]

    def size(batch: Sequence[int]) -> tuple[int, bool]:
        longest = max(lengths[index] for index in batch)
        return longest, any(lengths[index] < longest for index in batch)

    worst = max(batches, key=size)
    length, padded = size(worst)
    limit = _NO_LIMIT if hasattr(task, "max_new_tokens") else max_length  # as evaluation cuts them
    prompts = [_prompt_length(row) for row in _plain(task).encode(tokenizer, data.validation, limit)]
    return Workload(
        micro_batch_size=micro,
        length=length,
        padded=padded or getattr(task, "packing", False),  # packed examples are kept apart by a mask
        prompt_batch_size=min(train.eval_batch_size, len(prompts)),
        prompt_length=max(prompts),
        from_data=True,
        of_seed=config.seed if len(set(order)) < len(encoded) else None,
        rows=[encoded[index] for index in worst],
        task=task,
        tokenizer=tokenizer,
    )


def _prompt_length(row: Encoded) -> int:
    """Tokens of the model's input at evaluation: all of them, or for a generation those before the first label."""
    ids, labels = row["input_ids"], row["labels"]
    if not isinstance(labels, list) or len(labels) != len(ids) or isinstance(labels[0], float) or labels[0] != IGNORED:
        return len(ids)
    return next((index for index, label in enumerate(labels) if label != IGNORED), len(ids))


@contextmanager
def _offline() -> Iterator[None]:
    """A prediction downloads nothing: what is not in the cache counts as missing.

    The Hub's client reads this documented constant at each request. `local_files_only` would do for tokenizers; the
    `datasets` library has no such argument.
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class StandInTokenizer:
    """A tokenizer for texts that are numbers: "7" has seven tokens. Memory depends on lengths only."""

    pad_token_id = pad_token_type_id = eos_token_id = bos_token_id = 0
    chat_template = None
    eos_token = None
    all_special_tokens = ()

    def __call__(
        self, text: Sequence[str] = (), text_pair: Any = None, text_target: Sequence[str] = (), **kwargs: Any
    ) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * int(number) for number in text or text_target]}

    def batch_decode(self, ids: Sequence[Any], **kwargs: Any) -> list[str]:
        return [""] * len(ids)


def example(prompt: int, whole: int, label: str = "0") -> Example:
    """An example for the stand-in tokenizer: prompt and response, or a text, of `whole` tokens with the end token."""
    return {"prompt": str(prompt), "response": str(whole - prompt - 1), "text": str(whole), "label": label}
