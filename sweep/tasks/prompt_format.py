"""Prompts and answers as token ids: plain pairs, or conversations in the model's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sweep.core.errors import UserError
from sweep.datasets import Example, Message, without_role
from sweep.tasks import IGNORED, EncodedDataset
from sweep.tasks.batching import opened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

ANSWERING = "assistant"


class Dialogue(NamedTuple):
    """Token ids, with `labels` on all answers of the model. The last answer starts at index `answer`; the ids before it
    are the prompt to generate it from."""

    ids: list[int]
    labels: list[int]
    answer: int
    prompt_text: str
    reference: str


class Format(NamedTuple):
    """How examples become text for the model. With `apply_chat_template`, pairs become conversations. `template`
    replaces the tokenizer's own chat template."""

    apply_chat_template: bool = False
    system_prompt: str | None = None
    template: str | None = None

    def dialogues(self, tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Dialogue]:
        """The examples as token ids.

        Raises:
            UserError: for a tokenizer without an end token, or without a chat template where one is needed.
        """
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token, so a response would never end; it needs an eos_token")
        if self.apply_chat_template or "messages" in examples[0]:
            if not (self.template or tokenizer.chat_template):
                raise UserError(
                    "the tokenizer has no chat template; take an instruction-tuned model, give task.chat_template, or "
                    "plain pairs with task.apply_chat_template=false"
                )
            return [self._conversation(tokenizer, example, i) for i, example in enumerate(examples)]
        prompts = tokenizer([example["prompt"] for example in examples], verbose=False)["input_ids"]
        responses = tokenizer([example["response"] for example in examples], add_special_tokens=False, verbose=False)
        end = tokenizer.eos_token_id
        return [
            plain_dialogue(
                example, opened(_without_end(prompt, example["prompt"], tokenizer), tokenizer), [*response, end]
            )
            for example, prompt, response in zip(examples, prompts, responses["input_ids"], strict=True)
        ]

    def _conversation(self, tokenizer: Tokenizer, example: Example, index: int) -> Dialogue:
        """Each part is tokenised on its own, as in generation: first the prompt, then the answer.

        The loss is on every answer. Some templates write earlier turns differently from the last one (they omit the
        model's reasoning): then only the last answer can be separated, and the loss is on that one.
        """
        messages = self._messages(example, index)
        last = max(i for i, message in enumerate(messages) if message["role"] == ANSWERING)
        answers = [i for i, message in enumerate(messages[: last + 1]) if message["role"] == ANSWERING]
        parts: list[tuple[str, bool]] = []
        written = ""
        for i in answers:
            before = self._render(tokenizer, messages[:i], asking=True)
            after = self._render(tokenizer, messages[: i + 1], asking=False)
            if not (before.startswith(written) and after.startswith(before)):
                parts = []
                break
            parts += [(before[len(written) :], False), (after[len(before) :], True)]
            written = after
        if not parts:
            before = self._render(tokenizer, messages[:last], asking=True)
            after = self._render(tokenizer, messages[: last + 1], asking=False)
            if not after.startswith(before):
                raise UserError(
                    f"row {index + 1}: this chat template does not write an answer after its prompt, so the two "
                    "cannot be separated; give another task.chat_template"
                )
            parts = [(before, False), (after[len(before) :], True)]
        ids, labels, start = [], [], 0
        for text, answer in parts:
            tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            start = len(ids) if answer else start
            ids += tokens
            labels += tokens if answer else [IGNORED] * len(tokens)
        prompt_text = "".join(text for text, _ in parts[:-1])
        return Dialogue(ids, labels, start, prompt_text, messages[last]["content"])

    def _render(self, tokenizer: Tokenizer, messages: list[Message], asking: bool) -> str:
        from jinja2 import TemplateError

        try:
            return tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asking, chat_template=self.template
            )
        except TemplateError as error:
            raise UserError(f"the chat template refuses the conversation {str(messages)[:200]}: {error}") from error

    def _messages(self, example: Example, index: int) -> list[Message]:
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
                    f"row {index + 1}: messages must be a list of {{role, content}}, both text; it is "
                    f"{str(messages)[:200]}"
                )
            if not any(message["role"] == ANSWERING for message in messages):
                roles = ", ".join(message["role"] for message in messages)
                raise UserError(f"row {index + 1}: no message is by the {ANSWERING}, only by: {roles or 'nobody'}")
        if self.system_prompt and messages[0]["role"] != "system":
            messages = [Message(role="system", content=self.system_prompt), *messages]
        return messages


def plain_dialogue(example: Example, prompt: list[int], answer: list[int]) -> Dialogue:
    """One prompt and one answer."""
    labels = [*([IGNORED] * len(prompt)), *answer]
    return Dialogue([*prompt, *answer], labels, len(prompt), example["prompt"], example["response"])


def check_roles(examples: Sequence[Example], columns: Sequence[str], split: str, conversations: bool = True) -> None:
    """Raises UserError where examples are neither pairs nor, where allowed, conversations."""
    for index, example in enumerate(examples):
        if (conversations and "messages" in example) or ("prompt" in example and "response" in example):
            continue
        missing = "response" if "prompt" in example else "prompt"
        if any(missing in other for other in examples):
            raise UserError(f"example {index + 1} of the {split} split has no {missing}")
        raise UserError(without_role(missing, split, columns, " (nor messages)" if conversations else ""))


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
