"""Language modelling: plain texts, with a loss on all of their tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sweep.core.errors import UserError
from sweep.datasets import Example, Splits, place_of, without_role
from sweep.metrics import ModelOutputs
from sweep.tasks import EncodedDataset, Evaluation
from sweep.tasks.batching import pad_batch, positions_of
from sweep.tasks.likelihood import nll
from sweep.tasks.packing import Packable
from sweep.tasks.prompt_format import end_token
from sweep.tasks.special_tokens import without_added

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, kw_only=True)
class LanguageModeling(Packable):
    """Texts for a causal model. Each text ends with the tokenizer's end token.

    A text that is longer than `train.max_length` is divided into pieces, and each piece is a training row: no token is
    lost. Evaluation divides texts in the same way, so the first token of a piece has no likelihood.
    """

    task_type: ClassVar[str] = "CAUSAL_LM"
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    is_causal: ClassVar[bool] = True

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        for name, metric in self.metrics.items():
            if not metric.needs_likelihood:
                yield "metrics", f"{name} needs an answer to compare, and a text has none; use perplexity"

    def bind(self, splits: Splits) -> Self:
        for name in ("train", "validation", "test"):
            examples = getattr(splits, name)
            if examples and not any("text" in example for example in examples):
                raise UserError(without_role("text", name, splits.columns))
            for index, example in enumerate(examples):
                if not example.get("text", "").strip():
                    raise UserError(f"{place_of(example, index)} of the {name} split has no text")
        return self

    def inputs(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> Sequence[Sequence[int]]:
        end = end_token(tokenizer)
        texts = without_added([example["text"] for example in examples], tokenizer)
        found = tokenizer(texts, verbose=False)["input_ids"]
        return [ids if ids and ids[-1] == end else [*ids, end] for ids in found]

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
        pieces = [_pieces(ids, max_length) for ids in self.inputs(tokenizer, examples)]
        rows = EncodedDataset(
            [{"input_ids": ids, "labels": ids} for found in pieces for ids in found],
            dropped=sum(not found for found in pieces),
        )
        if not rows:
            raise UserError("no text has two tokens, so there is nothing to predict")
        return self.packed(rows, max_length)

    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
        max_length: int | None = None,
    ) -> Evaluation:
        limit = min(max_length or sys.maxsize, positions_of(model) or sys.maxsize)
        pieces = [
            (index, ids)
            for index, whole in enumerate(self.inputs(tokenizer, examples))
            for ids in _pieces(list(whole), limit)
        ]
        encoded = [{"input_ids": ids, "labels": ids} for _, ids in pieces]
        found = nll(model, encoded, pad_batch(tokenizer), batch_size, True, metered)
        sums, counts = [0.0] * len(examples), [0] * len(examples)
        for (index, _), total, count in zip(pieces, *found, strict=True):
            sums[index] += total
            counts[index] += count
        texts = [example["text"] for example in examples]
        rows = [{"index": index, "text": text} for index, text in enumerate(texts)]
        return self.measured(ModelOutputs(references=texts, nll=sums, tokens=counts), rows)


def _pieces(ids: list[int], size: int) -> list[list[int]]:
    """The ids in pieces of at most `size`; a piece of one token has nothing to predict."""
    found = [ids[start : start + size] for start in range(0, len(ids), size)]
    return [piece for piece in found if len(piece) > 1]
