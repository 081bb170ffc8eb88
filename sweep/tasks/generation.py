"""Prompt → response by a causal language model, scored on what it generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Ge

from sweep.datasets import Example
from sweep.errors import UserError
from sweep.tasks import Encoded, Evaluation, Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True, kw_only=True)
class Generation(Task):
    """The loss is on the response and the end token only; the score is on greedy generations of at most
    `max_new_tokens` tokens."""

    task_type: ClassVar[str] = "CAUSAL_LM"

    max_new_tokens: Annotated[int, Ge(1)] = 64

    def auto_class(self) -> type:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def encode(self, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Encoded]:
        return encode_pairs(tokenizer, examples, max_length)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        return pad_batch(tokenizer)

    def evaluate(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        batch_size: int,
        metered: Callable[[int], Any],
    ) -> Evaluation:
        """Batches of similar length, longest prompts first, padded on the left, greedy, with the KV cache."""
        prompts = tokenizer([example["prompt"] for example in examples])["input_ids"]
        generated = [""] * len(prompts)
        unpadded = puts_tokens_before(model)
        for number, indices in enumerate(prompt_batches([len(prompt) for prompt in prompts], batch_size, unpadded)):
            with metered(number):
                texts = self._generate(model, tokenizer, [prompts[i] for i in indices])
            for index, text in zip(indices, texts, strict=True):
                generated[index] = text
        references = [example["response"] for example in examples]
        per_example = {name: metric.per_example(generated, references) for name, metric in self.metrics.items()}
        rows = [
            {
                "index": index,
                "prompt": example["prompt"],
                "reference": references[index],
                "prediction": generated[index],
                **{name: values[index] for name, values in per_example.items()},
            }
            for index, example in enumerate(examples)
        ]
        scores = {name: metric.score(generated, references) for name, metric in self.metrics.items()}
        return Evaluation(scores=scores, rows=rows)

    def _generate(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]]
    ) -> list[str]:
        import torch

        device = next(model.parameters()).device
        longest = max(map(len, prompts))
        ids = [[tokenizer.pad_token_id] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        return tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)


def prompt_batches(lengths: Sequence[int], size: int, equal: bool) -> Iterator[list[int]]:
    """Indices in batches of at most `size`, longest first; with `equal`, all of a batch have the same length."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if len(batch) == size or (equal and batch and lengths[batch[0]] != lengths[index]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def puts_tokens_before(model: torch.nn.Module) -> bool:
    """Whether virtual tokens go before what the model is given, as prompt and prefix tuning have it.

    Padding on the left would then stand between them and the prompt, at another distance than in training (PEFT 0.21
    ignores position ids), and an answer would depend on what else is in the batch.
    """
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def encode_pairs(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    """Prompt (with the tokenizer's opening tokens), response, end token; labels on the last two.

    Tokens beyond `max_length` are cut off at the right. An example of whose response nothing is left is dropped: a
    batch of such ones alone has no loss.

    Raises:
        UserError: where that leaves no example at all.
    """
    prompts = tokenizer([example["prompt"] for example in examples])["input_ids"]
    responses = tokenizer([example["response"] for example in examples], add_special_tokens=False)["input_ids"]
    encoded: list[Encoded] = []
    for prompt, response in zip(prompts, responses, strict=True):
        answer = [*response, tokenizer.eos_token_id]
        ids = [*prompt, *answer][:max_length]
        labels = [*([IGNORED] * len(prompt)), *answer][:max_length]
        if len(ids) > len(prompt):
            encoded.append({"input_ids": ids, "labels": labels})
    if not encoded:
        raise UserError(
            f"train.max_length = {max_length} cuts every response off (the shortest prompt has "
            f"{min(map(len, prompts))} tokens): nothing is left to learn from; raise it"
        )
    return encoded


def pad_batch(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
    """A collator that pads to the longest example of the batch. Padding is masked by attention, never by token id:
    where the pad token is the end token, a mask by id would hide the real end of the text."""
    pad = tokenizer.pad_token_id

    def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        ids, labels, mask = [], [], []
        for row in rows:
            tokens, padding = list(row["input_ids"]), longest - len(row["input_ids"])
            ids.append(tokens + [pad] * padding)
            labels.append(list(row["labels"]) + [IGNORED] * padding)
            mask.append([1] * len(tokens) + [0] * padding)
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor(labels),
        }

    return collate
