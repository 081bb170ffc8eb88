"""Negative log-likelihood of texts under a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sweep.tasks import IGNORED
from sweep.tasks.batching import by_length

if TYPE_CHECKING:
    import torch

_BATCH_TOKENS = 4096  # the logits of a whole evaluation batch could need more memory than training


def nll(
    model: Any,
    rows: Sequence[Mapping[str, Any]],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    batch_size: int,
    is_causal: bool,
    metered: Callable[[int], AbstractContextManager[None]],
) -> tuple[list[float], list[int]]:
    """The negative log-likelihood of each row in nats, summed over its labelled tokens, and the number of these tokens.

    Args:
        is_causal: whether the model predicts the next token (at the position before it), not the token at its position.
        metered: batch index → the context that the batch runs in.
    """
    import torch

    lengths = [max(len(row["input_ids"]), len(row["labels"])) for row in rows]
    size = max(1, min(batch_size, _BATCH_TOKENS // max(lengths)))
    device = next(model.parameters()).device
    sums, counts = [0.0] * len(rows), [0] * len(rows)
    for number, indices in enumerate(by_length(lengths, size)):
        with metered(number), torch.no_grad():
            batch = {key: value.to(device) for key, value in collate([rows[i] for i in indices]).items()}
            labels = batch["labels"]
            logits = model(**batch).logits
            if is_causal:
                # PEFT's prompt learning puts positions before the text: align at the end.
                logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]
            losses = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
            )
            totals, tokens = losses.sum(1).tolist(), (labels != IGNORED).sum(1).tolist()
        for index, total, count in zip(indices, totals, tokens, strict=True):
            sums[index], counts[index] = total, count
    return sums, counts
