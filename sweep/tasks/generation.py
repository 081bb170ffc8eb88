"""Generation by a causal language model: prompt → response, scored on the generated text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from annotated_types import Ge

from sweep.core.errors import UserError, alternatives
from sweep.datasets import Dataset, Example, Splits, place_of
from sweep.datasets.file_parsing import read_text
from sweep.metrics import ModelOutputs
from sweep.tasks import IGNORED, Encoded, EncodedDataset, Evaluation
from sweep.tasks.batching import by_length, mask, pad_batch, padded, positions_in, positions_of, virtual_tokens
from sweep.tasks.decoding import generate
from sweep.tasks.likelihood import nll
from sweep.tasks.packing import Packable
from sweep.tasks.prompt_format import Dialogue, Format, check_roles, within

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

_OFF_TASK_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Generation(Packable):
    """Prompts → generated text. The loss is on the response and its end only; the score is on generated text.

    Examples are pairs (prompt, response), or conversations (messages), which always use the chat template.
    """

    task_type: ClassVar[str] = "CAUSAL_LM"
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    is_causal: ClassVar[bool] = True

    max_new_tokens: Annotated[int, Ge(1)] = 64
    """Most tokens that evaluation generates for a prompt."""
    num_beams: Annotated[int, Ge(1)] = 1
    """Beams of beam search; 1 is no beam search."""
    temperature: Annotated[float, Ge(0)] = 0.0
    """Temperature of sampling; 0 is greedy."""
    apply_chat_template: bool = False
    """Whether pairs of prompt and response are written in the model's chat template."""
    system_prompt: str | None = None
    """System message that the chat template gets."""
    chat_template: str | None = None
    """Chat template instead of the tokenizer's: a file, or Jinja text."""
    template_date: str = "2024-07-26"
    """Date that chat templates get which write the date of the day, as YYYY-MM-DD."""
    off_task_data: Dataset | None = None
    """Texts that the task is not about. The increase of their loss shows how much the model forgets."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        template = self.chat_template
        if template is not None and "{" not in template and not Path(template).expanduser().is_file():
            yield "chat_template", "is neither a Jinja template nor a file that holds one"
        try:
            date.fromisoformat(self.template_date)
        except ValueError:
            yield "template_date", "is not a date; write it as 2024-07-26"

    def bind(self, splits: Splits) -> Self:
        for name in ("train", "validation", "test"):
            check_roles(getattr(splits, name), splits.columns, name)
        return self

    def inputs(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> Sequence[Sequence[int]]:
        return [dialogue.ids for dialogue in self._dialogues(tokenizer, examples)]

    def check(self, tokenizer: Tokenizer, validation: Sequence[Example], base: PretrainedConfig) -> None:
        self._room(positions_in(base.to_dict()))
        references = [dialogue.reference for dialogue in self._dialogues(tokenizer, validation)]
        for metric in self.metrics.values():
            for index, fault in metric.reference_faults(references):
                raise UserError(f"{place_of(validation[index], index)} of the validation split: {fault}")

    def rehearsal(self) -> Self:
        return replace(self, max_new_tokens=min(2, self.max_new_tokens))

    def encode(self, tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
        rows = within(self._dialogues(tokenizer, examples), max_length)
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
        """Generates texts and computes the likelihood of the references, as far as the metrics need them.

        Batches have similar lengths, the longest prompts first, and use the KV cache. A prompt that leaves too few
        positions for a response is cut at the beginning. A response ends where those of the examples do.
        """
        dialogues = self._dialogues(tokenizer, examples)
        generated, cut = None, set()
        if any(metric.needs_predictions for metric in self.metrics.values()):
            whole = [dialogue.ids[: dialogue.answer] for dialogue in dialogues]
            prompts = self._fitting(whole, model, max_length)
            cut = {index for index, prompt in enumerate(prompts) if len(prompt) < len(whole[index])}
            generated = [""] * len(prompts)
            ends = {dialogue.ids[-1] for dialogue in dialogues}
            alike = virtual_tokens(model) > 0
            for number, indices in enumerate(by_length([len(prompt) for prompt in prompts], batch_size, equal=alike)):
                with metered(number):
                    texts = self._generate(model, tokenizer, [prompts[i] for i in indices], ends)
                for index, text in zip(indices, texts, strict=True):
                    generated[index] = text.removesuffix(dialogues[index].closing)
        sums = counts = None
        if any(metric.needs_likelihood for metric in self.metrics.values()):
            limit = max_length or positions_of(model) or max(len(dialogue.ids) for dialogue in dialogues)
            answers = self._answers(dialogues, limit)
            for index, (row, dialogue) in enumerate(zip(answers, dialogues, strict=True)):
                size = len(row["labels"]) + (0 if self.is_causal else len(row["input_ids"]))
                cut |= {index} if size < len(dialogue.ids) else set()
            sums, counts = nll(model, answers, pad_batch(tokenizer), batch_size, self.is_causal, metered)
        references = [dialogue.reference for dialogue in dialogues]
        rows: list[dict[str, Any]] = [
            {"index": index, "prompt": dialogue.prompt_text, "reference": dialogue.reference}
            for index, dialogue in enumerate(dialogues)
        ]
        for row, text in zip(rows, generated or (), strict=False):
            row["prediction"] = text
        return self.measured(ModelOutputs(references, generated, sums, counts), rows, len(cut))

    def off_task_metrics(self, model: torch.nn.Module, tokenizer: Tokenizer, max_length: int) -> dict[str, float]:
        """`off_task_loss`: nats per token of `off_task_data`, each text cut to `max_length` tokens."""
        if self.off_task_data is None:
            return {}
        splits = self.off_task_data.load()
        if any("text" not in example for example in splits.validation):
            raise UserError(f"task.off_task_data.columns.text is not given; {alternatives('text', splits.columns)}")
        texts = tokenizer([example["text"] for example in splits.validation], verbose=False)["input_ids"]
        rows = [{"input_ids": ids[:max_length], "labels": ids[:max_length]} for ids in texts if len(ids) > 1]
        if not rows:
            raise UserError("task.off_task_data: it holds no text of two tokens or more")
        was_training = model.training
        model.eval()
        sums, counts = nll(model, rows, pad_batch(tokenizer), _OFF_TASK_BATCH, True, lambda batch: nullcontext())
        model.train(was_training)
        return {"off_task_loss": sum(sums) / sum(counts)}

    def without_data(self) -> Self:
        return replace(self, apply_chat_template=False, system_prompt=None, chat_template=None)

    def _dialogues(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Dialogue]:
        """The examples as token ids. `chat_template` may name a file, since templates are long."""
        template = self.chat_template
        if template is not None and "{" not in template:
            template = read_text(Path(template).expanduser())
        today = date.fromisoformat(self.template_date)
        return Format(self.apply_chat_template, self.system_prompt, template, today).dialogues(tokenizer, examples)

    def _answers(self, dialogues: Sequence[Dialogue], limit: int) -> list[Encoded]:
        """Rows with labels on the last answer alone, which is the reference."""
        rows = []
        for dialogue in dialogues:
            labels = [*([IGNORED] * dialogue.answer), *dialogue.ids[dialogue.answer :]]
            start = max(0, min(len(labels) - limit, dialogue.answer - 1))  # a long prompt is cut at its beginning
            rows.append({"input_ids": dialogue.ids[start : start + limit], "labels": labels[start : start + limit]})
        return rows

    def _fitting(self, prompts: Sequence[list[int]], model: torch.nn.Module, max_length: int | None) -> list[list[int]]:
        """Prompts, cut where they leave too few of the model's positions for a response."""
        positions = positions_of(model)
        room = self._room(None if positions is None else positions - virtual_tokens(model))
        return list(prompts) if room is None else [prompt[-room:] for prompt in prompts]

    def _room(self, positions: int | None) -> int | None:
        """How many tokens of a prompt leave room for a response; None for any number. Raises UserError for none."""
        if positions is not None and positions <= self.max_new_tokens:
            raise UserError(
                f"task.max_new_tokens = {self.max_new_tokens} leaves no room for a prompt in the model's {positions} "
                "positions; lower it"
            )
        return None if positions is None else positions - self.max_new_tokens

    def _generate(
        self, model: torch.nn.Module, tokenizer: Tokenizer, prompts: list[list[int]], ends: set[int]
    ) -> list[str]:
        """The responses. Prompts are padded on the left, so that all responses start at the same position."""
        ids = padded(prompts, tokenizer.pad_token_id, left=True)
        inputs = {"input_ids": ids, "attention_mask": mask(prompts, left=True)}
        output = self._sequences(model, tokenizer, inputs, ends)
        return tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)

    def _sequences(self, model: Any, tokenizer: Tokenizer, inputs: dict[str, Any], ends: set[int]) -> torch.Tensor:
        sampling = {"temperature": self.temperature, "do_sample": True} if self.temperature else {"do_sample": False}
        return generate(
            model,
            inputs,
            {*ends, tokenizer.eos_token_id},
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            pad_token_id=tokenizer.pad_token_id,
            **sampling,
        )


def encode_pairs(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> EncodedDataset:
    """Rows of prompt (with the tokenizer's start tokens), response and end token; labels on the last two."""
    return within(Format().dialogues(tokenizer, examples), max_length)
