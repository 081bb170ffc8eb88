"""Every row of the data against tokenizer and base model, once, before a run is paid for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sweep.core.errors import UserError
from sweep.datasets import Splits, place_of
from sweep.tasks.special_tokens import added_by, without_ends

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from sweep.tasks import Task

log = logging.getLogger(__name__)


def check_rows(task: Task, tokenizer: Tokenizer, splits: Splits, max_length: int, base: PretrainedConfig) -> int:
    """Encode all splits. Returns how many training rows there are.

    Raises:
        UserError: for a row that cannot be encoded, a token that the base has no embedding for, training examples of
            which `max_length` leaves nothing, and references that a metric cannot read.
    """
    rows = task.encode(tokenizer, splits.train, max_length)
    size = _embeddings(base)
    _require_embedding(tokenizer, tokenizer.pad_token_id, size, "padding")
    for name in ("train", "validation", "test"):
        examples = getattr(splits, name)
        for index, ids in enumerate(task.inputs(tokenizer, examples) if examples else ()):
            where = f"{place_of(examples[index], index)} of the {name} split"
            _require_embedding(tokenizer, max(ids, default=0), size, where)
    task.check(tokenizer, splits.validation, base)
    opening, closing = added_by(tokenizer)
    texts = [example[role] for example in splits.train for role in ("text", "prompt", "response") if role in example]
    marked = sum(without_ends(text, opening, (*closing, tokenizer.eos_token)) != text for text in texts)
    if marked:
        log.warning("%d training texts begin or end with a special token: it is not doubled, and not compared", marked)
    if tokenizer.model_max_length < max_length:
        log.warning(
            "the tokenizer states a limit of %d tokens (model_max_length); train.max_length = %d decides, in training "
            "and in evaluation", tokenizer.model_max_length, max_length,
        )  # fmt: skip
    return len(rows)


def _require_embedding(tokenizer: Tokenizer, token: int, size: int | None, where: str) -> None:
    if size is not None and token >= size:
        text = tokenizer.convert_ids_to_tokens(token)
        raise UserError(
            f"the tokenizer and the base model do not fit: {where} has the token {text!r} with the id {token}, and the "
            f"model has {size} embeddings. Add the missing ones and save the model "
            "(model.resize_token_embeddings(len(tokenizer))), or take the tokenizer that the model came with"
        )


def _embeddings(base: PretrainedConfig) -> int | None:
    """The number of the model's input embeddings; None where the config does not state one."""
    try:
        return getattr(base, "vocab_size", None) or getattr(base.get_text_config(), "vocab_size", None)
    except ValueError:  # a model of two parts, each with its own
        return None
