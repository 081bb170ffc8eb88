"""The longest length in training where the config gives none: what 95% of the training examples do not exceed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sweep.tasks.batching import positions_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from sweep.datasets import Example
    from sweep.tasks import Task

SHARE = 0.95
_MOST = 2048  # tokens: memory grows with the length, and a few books among texts would decide it
_SAMPLE = 2000  # examples; the share is then exact to 0.5% (standard error)
_STEP = 8  # kernels for half precision work on multiples of eight


class UsualLength(NamedTuple):
    """`tokens` is the length; `longest` is that of the longest of `examples` examples; `limit` is why it is not longer:
    "the model's positions", "the default's limit", or ""."""

    tokens: int
    longest: int
    examples: int
    limit: str

    def sentence(self) -> str:
        """For the user, before a study."""
        of = f"{self.examples:,} training examples"
        if self.limit:
            cut = f"{self.limit} allow no more, and longer examples are cut"
        elif self.longest > self.tokens:
            cut = f"95% of {of} have no more; the longest has {self.longest:,}, and longer ones are cut"
        else:
            cut = f"none of {of} is longer"
        return f"train.max_length = {self.tokens} tokens: {cut}. Give train.max_length for another length"


def usual_length(task: Task, tokenizer: Tokenizer, train: Sequence[Example], base: PretrainedConfig) -> UsualLength:
    """The smallest multiple of 8 that 95% of the first 2,000 training examples do not exceed, in tokens; at most the
    model's positions, and at most 2,048. The examples are in the order of the data's seed."""
    sample = train[:_SAMPLE]
    lengths = sorted(task.lengths(tokenizer, sample))
    usual = lengths[math.ceil(SHARE * len(lengths)) - 1]
    wanted = max(_STEP, math.ceil(usual / _STEP) * _STEP)
    positions = positions_in(base.to_dict())
    limits = {"the model's positions": positions or wanted, f"the {_MOST:,} tokens of the default": _MOST}
    reason, tokens = min(limits.items(), key=lambda item: item[1])
    found = min(wanted, tokens)
    return UsualLength(found, lengths[-1], len(sample), reason if tokens < usual else "")
