"""Batches of examples with different lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweep.tasks import IGNORED, Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer


def by_length(lengths: Sequence[int], batch_size: int, equal: bool = False) -> Iterator[list[int]]:
    """Indices in batches of similar length. The longest come first, so that a batch that exceeds memory fails at once.
    With `equal`, all examples of a batch have the same length."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if len(batch) == batch_size or (equal and batch and lengths[batch[0]] != lengths[index]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def virtual_tokens(model: torch.nn.Module) -> int:
    """How many tokens prompt or prefix tuning puts before the input.

    Padding on the left would separate them from the prompt, which training does not do (PEFT 0.21 ignores position
    ids): an answer would depend on the other examples of its batch.
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


def opened(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """The ids; for an empty text, which has none, a start token. Models cannot compute on an empty row, and need a
    token to predict the first token of an answer from."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return ids or [next(token for token in known if token is not None)]


def mask(rows: Sequence[Sequence[int]], left: bool = False) -> torch.Tensor:
    """1 for tokens, 0 for padding, by length. A mask by token id would hide the end of the text where the end token is
    also the padding token."""
    return padded([[1] * len(row) for row in rows], 0, left)


def positions_of(model: torch.nn.Module) -> int | None:
    """The number of positions that texts can use, in tokens; None where the model's config names none."""
    config: Any = getattr(model, "config", None)
    return None if config is None else positions_in(config.to_dict())


def positions_in(config: Mapping[str, Any]) -> int | None:
    """The same, from the keys of a config.json: 512 for RoBERTa's 514 positions."""
    found, kind = config.get("max_position_embeddings") or config.get("n_positions"), config.get("model_type", "")
    if not isinstance(found, int) or found < 1 or kind in RELATIVE or _has_relative_positions(config):
        return None  # XLNet states -1 for "no limit"
    pad = config.get("pad_token_id")
    return found - (pad if isinstance(pad, int) else 1) - 1 if kind in OFFSET else found


def _has_relative_positions(config: Mapping[str, Any]) -> bool:
    """Whether the model adds no position to its input: DeBERTa v2 and v3 compare positions inside attention, ALiBi adds
    a distance there. Their max_position_embeddings limits nothing."""
    absolute = config.get("position_biased_input", True)
    return config.get("alibi") is True or (config.get("relative_attention") is True and not absolute)


# Models with relative positions: their n_positions limits nothing.
RELATIVE = ("t5", "mt5", "umt5", "longt5")
# Models whose positions start after the id of the padding token.
OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text", "mpnet",
          "longformer", "ibert", "xmod", "esm")  # fmt: skip


def pad_batch(tokenizer: Tokenizer) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
    """A collator that pads to the longest example of the batch."""
    pad = tokenizer.pad_token_id

    def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
        ids = [row["input_ids"] for row in rows]
        labels = padded([row["labels"] for row in rows], IGNORED)
        return {"input_ids": padded(ids, pad), "attention_mask": mask(ids), "labels": labels}

    return collate
