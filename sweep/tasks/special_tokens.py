"""Special tokens in the texts of examples: they are not doubled, and not compared.

Files that were made for another trainer hold them as text: a response ends in "</s>", a prompt begins with "<s>".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def closing_ids(tokenizer: Tokenizer) -> set[int]:
    """The special tokens that may close a text: all but those that stand for an unknown or a hidden word."""
    named = [*tokenizer.all_special_tokens, *(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special)]
    inner = {tokenizer.unk_token, tokenizer.mask_token} - {tokenizer.eos_token, tokenizer.sep_token}
    return set(tokenizer.convert_tokens_to_ids([text for text in dict.fromkeys(named) if text not in inner]))


def visible(text: str, tokenizer: Tokenizer) -> str:
    """The text without special tokens, as predictions are decoded."""
    every = _either(tokenizer.all_special_tokens)
    return re.sub(every, "", text) if every else text


def without_ends(text: str, opening: Iterable[str | None], closing: Iterable[str | None]) -> str:
    """The text without such tokens at its beginning and at its end."""
    first, last = _either(opening), _either(closing)
    text = re.sub(rf"^(?:\s*{first})+", "", text) if first else text
    return re.sub(rf"(?:{last}\s*)+$", "", text) if last else text


def added_by(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The tokens that the tokenizer itself puts before and after a text."""
    plain, whole = (tokenizer(["1"], add_special_tokens=add, verbose=False)["input_ids"][0] for add in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), len(whole))
    ends: Any = whole[:start], whole[start + len(plain) :]
    opening, closing = (tokenizer.convert_ids_to_tokens(ids) if ids else [] for ids in ends)
    return opening, closing


def without_added(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """The texts without what the tokenizer adds to each."""
    opening, closing = added_by(tokenizer)
    return [without_ends(text, opening, closing) for text in texts]


def _either(tokens: Iterable[str | None]) -> str:
    found = "|".join(re.escape(token) for token in sorted({t for t in tokens if t}, key=len, reverse=True))
    return f"(?:{found})" if found else ""
