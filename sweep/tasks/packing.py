"""Packing: several short examples in one row, so that a batch has hardly any padding.

Each example has positions of its own, and no attention to its neighbours: transformers masks attention between examples
where positions start at 0 again. The loss equals that of unpacked examples, except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.core.errors import UserError
from sweep.tasks import IGNORED, Encoded, EncodedDataset, Task
from sweep.tasks.batching import pad_batch, padded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer

_OPEN_ROWS = 64  # rows that are searched for space


@dataclass(frozen=True, kw_only=True)
class Packable(Task):
    """A task of texts whose training examples may share rows."""

    packing: bool = False
    """Whether several short examples share one training row."""

    def packed(self, rows: EncodedDataset, max_length: int) -> EncodedDataset:
        """The rows as training gets them."""
        return pack(rows, max_length) if self.packing else rows

    def collator(self, tokenizer: Tokenizer) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
        return pad_packed(tokenizer.pad_token_id) if self.packing else pad_batch(tokenizer)

    def verify(self, model: torch.nn.Module, examples: Sequence[Encoded]) -> None:
        if self.packing:
            verify(model, examples)


def pack(rows: EncodedDataset, max_length: int) -> EncodedDataset:
    """Rows of at most `max_length` tokens. Each example goes to the first open row with enough space."""
    packed: list[dict[str, list[int]]] = []
    for row in rows:
        size = len(row["input_ids"])
        open_rows = packed[-_OPEN_ROWS:]
        target = next((other for other in open_rows if len(other["input_ids"]) + size <= max_length), None)
        if target is None:
            target = {"input_ids": [], "labels": [], "position_ids": []}
            packed.append(target)
        target["input_ids"] += row["input_ids"]
        target["labels"] += [IGNORED, *row["labels"][1:]]  # no token before an example predicts its first one
        target["position_ids"] += range(size)
    return EncodedDataset(packed, truncated=rows.truncated, dropped=rows.dropped)


def pad_packed(pad: int) -> Callable[[list[Encoded]], dict[str, torch.Tensor]]:
    """A collator without an attention mask: positions alone separate examples, and padding is one more example.
    `tokens` counts tokens without padding, for the throughput."""

    def collate(rows: list[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        positions = [[*row["position_ids"], *range(longest - len(row["position_ids"]))] for row in rows]
        return {
            "input_ids": padded([row["input_ids"] for row in rows], pad),
            "labels": padded([row["labels"] for row in rows], IGNORED),
            "position_ids": torch.tensor(positions),
            "tokens": torch.tensor(sum(len(row["input_ids"]) for row in rows)),
        }

    return collate


def verify(model: Any, rows: Sequence[Encoded]) -> None:
    """Check on the first row with several examples that an example gets the same logits as alone.

    Raises:
        UserError: where it does not, since the architecture or the variant does not separate packed examples.
    """
    import torch

    row = next((row for row in rows if row["position_ids"].count(0) > 1), None)
    if row is None:
        return
    device = next(model.parameters()).device
    starts = [index for index, position in enumerate(row["position_ids"]) if position == 0]
    begin, end = starts[1], [*starts, len(row["input_ids"])][2]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        ids = torch.tensor([row["input_ids"][:end]], device=device)
        packed = model(input_ids=ids, position_ids=torch.tensor([row["position_ids"][:end]], device=device)).logits
        alone = model(input_ids=ids[:, begin:end]).logits
    model.train(was_training)
    apart = (packed[0, -(end - begin) :].float() - alone[0, -(end - begin) :].float()).abs().max()
    scale = alone.float().abs().max()
    if apart > 0.05 * scale:
        raise UserError(
            f"task.packing: {type(model).__name__} does not separate packed examples (logits differ by "
            f"{float(apart):.3g} of {float(scale):.3g}); use task.packing=false"
        )
