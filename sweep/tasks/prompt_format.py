"""Prompts and answers as token ids: plain pairs, or conversations in the model's chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from sweep.core.errors import UserError
from sweep.datasets import Example, Message, place_of, without_role
from sweep.tasks import IGNORED, EncodedDataset
from sweep.tasks.batching import opened
from sweep.tasks.special_tokens import added_by, closing_ids, visible, without_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

ANSWERING = "assistant"
_MARK = "answer0content"  # stands for an answer, to see what a template writes around it
_NOW = r"""strftime_now\(\s*(?P<quote>["'])(?P<format>[^"']*)(?P=quote)\s*\)"""


class _Part(NamedTuple):
    """An answer as its template writes it: the text before it since the answer before, its own text, and what of this
    text comes after the content (None where the template changes its answers)."""

    asked: str
    text: str
    tail: str | None


class Dialogue(NamedTuple):
    """Token ids, with `labels` on all answers of the model. The last answer starts at index `answer`; the ids before it
    are the prompt to generate it from.

    The last id ends the answer, in training and in generation: the first special token that the chat template writes
    after an answer, else the tokenizer's end token. `closing` is plain text that the template writes before that token,
    and no part of the answer.
    """

    ids: list[int]
    labels: list[int]
    answer: int
    prompt_text: str
    reference: str
    closing: str = ""


class Format(NamedTuple):
    """How examples become text for the model. With `apply_chat_template`, pairs become conversations. `template`
    replaces the tokenizer's own chat template. `today` is the date that a template gets which asks for one: with the
    clock's, the runs of two days would have other prompts."""

    apply_chat_template: bool = False
    system_prompt: str | None = None
    template: str | None = None
    today: date = date(2024, 7, 26)

    def dialogues(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Dialogue]:
        """The examples as token ids.

        Raises:
            UserError: for a tokenizer without an end token, or without a chat template where one is needed.
        """
        end = end_token(tokenizer)
        if self.apply_chat_template or "messages" in examples[0]:
            if not (self.template or tokenizer.chat_template):
                raise UserError(
                    "the tokenizer has no chat template; take an instruction-tuned model, give task.chat_template, or "
                    "plain pairs with task.apply_chat_template=false"
                )
            return [self._conversation(tokenizer, e, place_of(e, i)) for i, e in enumerate(examples)]
        opening, _ = added_by(tokenizer)
        prompts = tokenizer([without_ends(e["prompt"], opening, ()) for e in examples], verbose=False)["input_ids"]
        answers = [without_ends(e["response"], opening, (tokenizer.eos_token,)) for e in examples]
        responses = tokenizer(answers, add_special_tokens=False, verbose=False)["input_ids"]
        return [
            plain_dialogue(
                example["prompt"],
                visible(text, tokenizer),
                opened(_without_end(prompt, example["prompt"], tokenizer), tokenizer),
                [*response, end],
            )
            for example, text, prompt, response in zip(examples, answers, prompts, responses, strict=True)
        ]

    def _conversation(self, tokenizer: Tokenizer, example: Example, place: str) -> Dialogue:
        """Each part is tokenised on its own, as in generation: first the prompt, then the answer.

        The loss is on every answer and its end. Some templates write earlier turns differently from the last one (they
        omit the model's reasoning): then only the last answer can be separated, and the loss is on that one.
        """
        messages = self._messages(tokenizer, example, place)
        answers = [i for i, message in enumerate(messages) if message["role"] == ANSWERING]
        last = answers[-1]
        parts = self._parts(tokenizer, messages, answers, place) or self._parts(tokenizer, messages, [last], place)
        if not parts:
            raise UserError(
                f"{place}: this chat template does not write an answer after its prompt, so the two "
                "cannot be separated; give another task.chat_template"
            )
        ids: list[int] = []
        labels: list[int] = []
        ends, before = closing_ids(tokenizer), ""
        for part in parts:
            prompt = tokenizer(part.asked, add_special_tokens=False, verbose=False)["input_ids"]
            answer, rest, closing = _answer(tokenizer, part, ends)
            start, prompt_text = len(ids) + len(prompt), before + part.asked
            ids += [*prompt, *answer, *rest]
            labels += [*([IGNORED] * len(prompt)), *answer, *([IGNORED] * len(rest))]
            before = prompt_text + part.text
        ids, labels = ids[: start + len(answer)], labels[: start + len(answer)]
        if not answer or answer[-1] not in ends:
            ids, labels = [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]
        return Dialogue(ids, labels, start, prompt_text, visible(messages[last]["content"], tokenizer), closing)

    def _parts(self, tokenizer: Tokenizer, messages: list[Message], answers: Sequence[int], place: str) -> list[_Part]:
        """A part for each answer; none where one text does not continue the other. Words that the template writes
        between the request for an answer and its content (an empty block of thoughts) are given, not asked for."""
        parts, written = [], ""
        for i in answers:
            before = self._render(tokenizer, messages[:i], place, asking=True)
            after = self._render(tokenizer, messages[: i + 1], place, asking=False)
            if not (before.startswith(written) and after.startswith(before)):
                return []
            marked = [*messages[:i], Message(role=ANSWERING, content=_MARK)]
            lead, _, tail = self._render(tokenizer, marked, place, asking=False).partition(_MARK)
            alike = after.startswith(lead) and after[len(lead) :].endswith(tail)
            begin = len(lead) if alike and lead[len(before) :].strip() else len(before)
            parts.append(_Part(after[len(written) : begin], after[begin:], tail if alike else None))
            written = after
        return parts

    def _render(self, tokenizer: Tokenizer, messages: list[Message], place: str, asking: bool) -> str:
        """Raises UserError with the row where the template refuses the messages."""
        from jinja2 import TemplateError

        try:
            return tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=asking,
                chat_template=self._dated(tokenizer.get_chat_template(self.template)),
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise UserError(
                f"{place}: the chat template refuses the conversation {str(messages)[:200]}: {error}"
            ) from error

    def _dated(self, template: str) -> str:
        """The template with `today` in the place of the clock's date."""
        dated = re.sub(_NOW, lambda call: json.dumps(self.today.strftime(call["format"])), template)
        if "strftime_now(" in dated:
            raise UserError(
                "the chat template writes the date of the day in a form that is not a plain text, so that the prompts "
                "of two days would differ; give another task.chat_template"
            )
        return dated

    def _messages(self, tokenizer: Tokenizer, example: Example, place: str) -> list[Message]:
        if "messages" not in example:
            pair = ("user", example["prompt"]), (ANSWERING, example["response"])
            messages = [Message(role=role, content=text) for role, text in pair]
        else:
            messages = example["messages"]
            right = isinstance(messages, list) and all(
                isinstance(m, dict) and all(isinstance(m.get(key), str) for key in ("role", "content"))
                for m in messages
            )
            if not right:
                raise UserError(
                    f"{place}: messages must be a list of {{role, content}}, both text; it is {str(messages)[:200]}"
                )
            if not any(message["role"] == ANSWERING for message in messages):
                roles = ", ".join(message["role"] for message in messages)
                raise UserError(f"{place}: no message is by the {ANSWERING}, only by: {roles or 'nobody'}")
        special = tokenizer.convert_ids_to_tokens(sorted(closing_ids(tokenizer)))  # the template writes its own
        messages = [{**m, "content": without_ends(m["content"], special, special)} for m in messages]
        if self.system_prompt and messages[0]["role"] != "system":
            messages = [Message(role="system", content=self.system_prompt), *messages]
        if messages[0]["role"] == ANSWERING:
            raise UserError(f"{place}: the conversation begins with an answer, and no message asks for it")
        return messages


def end_token(tokenizer: Tokenizer) -> int:
    """The id of the tokenizer's end token. Raises UserError where it has none."""
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end token, so a response would never end; it needs an eos_token")
    return tokenizer.eos_token_id


def plain_dialogue(prompt_text: str, reference: str, prompt: list[int], answer: list[int]) -> Dialogue:
    """One prompt and one answer."""
    labels = [*([IGNORED] * len(prompt)), *answer]
    return Dialogue([*prompt, *answer], labels, len(prompt), prompt_text, reference)


def _answer(tokenizer: Tokenizer, part: _Part, ends: set[int]) -> tuple[list[int], list[int], str]:
    """The ids of an answer up to its end, the ids after that, and the plain text after the content where no special
    token ends it."""
    ids = tokenizer(part.text, add_special_tokens=False, verbose=False)["input_ids"]
    if part.tail is None:
        size = next((i for i in range(len(ids), 0, -1) if ids[i - 1] in ends), len(ids))
        return ids[:size], ids[size:], ""
    tail = tokenizer(part.tail, add_special_tokens=False, verbose=False)["input_ids"] if part.tail else []
    first = next((i for i, token in enumerate(tail) if token in ends), None)
    if first is None:
        return ids, [], part.tail
    size = len(ids) - (len(tail) - first - 1)  # special tokens split a text, so that its end has the same ids alone
    return ids[:size], ids[size:], ""


def check_roles(examples: Sequence[Example], columns: Sequence[str], split: str, conversations: bool = True) -> None:
    """Raises UserError where examples are neither pairs nor, where allowed, conversations."""
    for index, example in enumerate(examples):
        if (conversations and "messages" in example) or ("prompt" in example and "response" in example):
            continue
        missing = "response" if "prompt" in example else "prompt"
        if any(missing in other for other in examples):
            raise UserError(f"{place_of(example, index)} of the {split} split has no {missing}")
        plain = (
            ". Plain texts without a prompt are for task=language_modeling"
            if conversations and "text" in columns
            else ""
        )
        raise UserError(without_role(missing, split, columns, " (nor messages)" if conversations else "") + plain)


def within(dialogues: Sequence[Dialogue], max_length: int) -> EncodedDataset:
    """Training rows of at most `max_length` tokens, cut at the end. Dialogues whose answers are cut off as a whole are
    dropped, since a batch of them would have no loss.

    Raises:
        UserError: where no example is left.
    """
    rows, truncated = [], 0
    for dialogue in dialogues:
        labels = dialogue.labels[:max_length]
        if any(label != IGNORED for label in labels[1:]):  # no token predicts the first one
            truncated += len(dialogue.ids) > max_length
            rows.append({"input_ids": dialogue.ids[:max_length], "labels": labels})
    if not rows:
        raise UserError(
            f"train.max_length = {max_length} cuts off every response (the shortest prompt has "
            f"{min(dialogue.answer for dialogue in dialogues)} tokens), so no example is left; raise it"
        )
    return EncodedDataset(rows, truncated=truncated, dropped=len(dialogues) - len(rows))


def _without_end(ids: list[int], text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids without an end token: some tokenizers end every text, but a prompt continues."""
    closed = ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(tokenizer.eos_token))
    return ids[:-1] if closed and len(ids) > 1 else ids
