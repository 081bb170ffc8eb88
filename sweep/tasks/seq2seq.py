"""Generation by an encoder and a decoder (T5, BART, …): prompt → response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from sweep.core.errors import UserError
from sweep.datasets import Example, Splits
from sweep.tasks import Encoded, EncodedDataset
from sweep.tasks.batching import mask, padded, positions_of
from sweep.tasks.generation import Generation, pad_batch
from sweep.tasks.prompt_format import Dialogue, check_roles, end_token, plain_dialogue
from sweep.tasks.special_tokens import visible, without_added

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True, kw_only=True)
class Seq2Seq(Generation):
    """The prompt is the encoder's text, with the end that the tokenizer gives it; the response is the decoder's text.
    Each is cut to the longest length on its own, and keeps its end token."""

    task_type: ClassVar[str] = "SEQ_2_SEQ_LM"
    auto_model: ClassVar[str] = "AutoModelForSeq2SeqLM"
    is_causal: ClassVar[bool] = False

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.packing:
            yield "packing", "is for causal models; models with encoder and decoder cannot be packed"
        if self.apply_chat_template:
            yield "apply_chat_template", "is for causal models"
        if self.off_task_data is not None:
            reason = "a model with encoder and decoder has no likelihood for a single text"
            yield "off_task_data", f"is for causal models: {reason}"

    def bind(self, splits: Splits) -> Self:
        for name in ("train", "validation", "test"):
            check_roles(getattr(splits, name), splits.columns, name, conversations=False)
        return self

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
        dialogues = self._dialogues(tokenizer, examples)
        truncated = sum(max(d.answer, len(d.ids) - d.answer) > max_length for d in dialogues)
        return EncodedDataset(self._answers(dialogues, max_length), truncated=truncated)

    def lengths(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[int]:
        return [max(d.answer, len(d.ids) - d.answer) for d in self._dialogues(tokenizer, examples)]

    def collator(self, tokenizer: Tokenizer) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        """The batch's `tokens` counts prompts and responses, for the throughput."""
        batch = pad_batch(tokenizer)

        def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
            import torch

            tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)
            return {**batch(rows), "tokens": torch.tensor(tokens)}

        return collate

    def _dialogues(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Dialogue]:
        asked = without_added([example["prompt"] for example in examples], tokenizer)
        answers = without_added([example["response"] for example in examples], tokenizer)
        prompts, end = tokenizer(asked, verbose=False)["input_ids"], end_token(tokenizer)
        responses = [
            ids if end in ids else [*ids, end] for ids in tokenizer(text_target=answers, verbose=False)["input_ids"]
        ]
        references = [visible(text, tokenizer) for text in answers]
        return list(map(plain_dialogue, asked, references, prompts, responses))

    def _room(self, positions: int | None) -> int | None:
        """Any number: prompt and response have positions of their own."""
        if positions is not None and positions < self.max_new_tokens:
            raise UserError(f"task.max_new_tokens = {self.max_new_tokens} exceeds the model's {positions} positions")
        return None

    def _fitting(self, prompts: Sequence[list[int]], model: torch.nn.Module, max_length: int | None) -> list[list[int]]:
        limits = [limit for limit in (max_length, positions_of(model)) if limit]
        return [_cut(prompt, min(limits)) for prompt in prompts] if limits else list(prompts)

    def _generate(
        self, model: torch.nn.Module, tokenizer: Tokenizer, prompts: list[list[int]], ends: set[int]
    ) -> list[str]:
        inputs = {"input_ids": padded(prompts, tokenizer.pad_token_id), "attention_mask": mask(prompts)}
        return tokenizer.batch_decode(self._sequences(model, tokenizer, inputs, ends), skip_special_tokens=True)

    def _answers(self, dialogues: Sequence[Dialogue], limit: int) -> list[Encoded]:
        return [
            {"input_ids": _cut(d.ids[: d.answer], limit), "labels": _cut(d.ids[d.answer :], limit)} for d in dialogues
        ]


def _cut(ids: list[int], max_length: int) -> list[int]:
    """At most `max_length` tokens, with the last one, which ends the text."""
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]
