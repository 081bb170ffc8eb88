"""What failed, why, and what to change: advice per outcome."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sweep.errors import first_line

_ADVICE = {
    "oom": (
        "Smaller train.micro_batch_size with more train.gradient_accumulation_steps (the same batch), "
        "train.activation_checkpointing=true, a shorter train.max_length, or QLoRA (variant=qlora_r16). These are "
        "conditions, all but the variant: another study."
    ),
    "diverged": (
        "A lower variant.learning_rate (half, or a third); gradient clipping (train.max_grad_norm=1.0); a longer "
        "train.warmup_ratio; bf16 rather than fp16."
    ),
    "failed": "Read the run's traceback.txt in MLflow, mend the cause, and repeat the study's command.",
    "killed": "Repeat the study's command: it goes on where it stopped.",
    "pruned": "Nothing: it was stopped because settings that need no more memory were clearly better at the same step.",
}


class Failure(NamedTuple):
    """Runs of one setting that ended in the same way."""

    setting: str
    outcome: str
    seeds: str
    reason: str


def failures(runs: pd.DataFrame) -> list[Failure]:
    """The runs that count and did not end well, by setting and outcome."""
    bad = runs[(runs["outcome"] != "ok") & ~runs["running"].astype(bool)]
    found = []
    for (setting, outcome), group in bad.groupby(["setting", "outcome"], sort=False):
        seeds = ", ".join(str(seed) for seed in sorted(group["seed"]))
        reasons = list(dict.fromkeys(first_line(reason) for reason in group["reason"]))
        reason = reasons[0] + (f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else "")
        found.append(Failure(str(setting), str(outcome), seeds, reason))
    return found


def advice(found: list[Failure]) -> dict[str, str]:
    """outcome → what to do about it, for the outcomes that occur."""
    return {outcome: words for outcome, words in _ADVICE.items() if any(f.outcome == outcome for f in found)}
