"""Batches of examples of different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def by_length(lengths: Sequence[int], batch_size: int, equal: bool = False) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first: what does not fit into memory fails at once. With
    `equal`, all of a batch have the same length."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if len(batch) == batch_size or (equal and batch and lengths[batch[0]] != lengths[index]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def virtual_tokens(model: torch.nn.Module) -> int:
    """How many tokens prompt and prefix tuning put before what the model is given.

    Padding on the left would stand between them and the prompt, at another distance than in training (PEFT 0.21 ignores
    position ids), and an answer would depend on what else is in the batch.
    """
    config = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> torch.Tensor:
    """Rows of token ids or labels as one tensor, as wide as the longest."""
    import torch

    longest = max(map(len, rows))
    fill = [[value] * (longest - len(row)) for row in rows]
    whole = [[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, fill, strict=True)]
    return torch.tensor(whole, dtype=torch.long)


def opened(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids, or where an empty text has none, the token that texts open with: models compute on no empty row, and the
    first token of an answer is foretold from something."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return ids or [next(token for token in known if token is not None)]


def mask(rows: Sequence[Sequence[int]], left: bool = False) -> torch.Tensor:
    """1 for tokens, 0 for padding. By length, never by token id: where the padding token is the end token, a mask by id
    would hide the real end of the text."""
    return padded([[1] * len(row) for row in rows], 0, left)


def positions_of(model: torch.nn.Module) -> int | None:
    """How many tokens the model has positions for, where it says so."""
    config: Any = getattr(model, "config", None)
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(found, int) or getattr(config, "model_type", "") in RELATIVE:
        return None
    return usable_positions(getattr(config, "model_type", ""), found, getattr(config, "pad_token_id", None))


# Their n_positions bounds nothing: positions are relative.
RELATIVE = ("t5", "mt5", "umt5", "longt5")
# They count positions from behind the padding token's id.
OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text", "mpnet",
          "longformer", "ibert", "xmod", "esm")  # fmt: skip


def usable_positions(model_type: str, positions: int, pad_token_id: int | None) -> int:
    """RoBERTa's 514 positions are 512 for text: its table starts behind the padding token's id."""
    return positions - (1 if pad_token_id is None else pad_token_id) - 1 if model_type in OFFSET else positions
