"""Decoding by the run's own config: what `generation_config.json` asks for does not travel into the scores.

A repetition penalty of 1.1 or a ban on repeated trigrams, as checkpoints come with, moves an exact match by a quarter
or to 0, and no config shows it. Only the tokens that end a text, and those that a decoder starts with, are the
checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def generate(model: Any, inputs: Mapping[str, torch.Tensor], ends: set[int], **options: Any) -> torch.Tensor:
    """Token ids. Generation stops at any of `ends` or of the checkpoint's own end tokens; `options` are arguments of
    transformers' `GenerationConfig`, and all others have its defaults."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad(), _neutral(model) as named:
        found = {name: tensor.to(device) for name, tensor in inputs.items()}
        return model.generate(**found, eos_token_id=sorted(ends | named), use_cache=True, **options)


@contextmanager
def _neutral(model: Any) -> Iterator[set[int]]:
    """The model without the settings of its checkpoint. Gives the checkpoint's end tokens.

    `generate` fills what its caller leaves open from the model, so it is the model's config that has to be another.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # under PEFT's wrapper
    own, start = base.generation_config, getattr(base.config, "decoder_start_token_id", None)
    base.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, decoder_start_token_id=own.decoder_start_token_id if start is None else start
    )
    named = own.eos_token_id
    try:
        yield {named} if isinstance(named, int) else set(named or ())
    finally:
        base.generation_config = own
