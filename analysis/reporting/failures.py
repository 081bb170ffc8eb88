"""What failed, why, and what to change: advice per outcome."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from sweep.core.errors import first_line

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


def doubts(runs: pd.DataFrame) -> list[str]:
    """What the runs' own figures give reason to doubt, as the runs say it (their fact `warnings`): one line for each
    setting and kind of doubt, in the words of the first run that has it."""
    if "warnings" not in runs:
        return []
    told: dict[tuple[str, str], list[str]] = {}
    for setting, seed, said in zip(runs["setting"], runs["seed"], runs["warnings"], strict=True):
        for line in str(said).splitlines() if isinstance(said, str) else []:
            kind = line.partition(":")[0].partition(",")[0]
            told.setdefault((str(setting), kind), []).append(f"(seed {seed}) {line}")
    return [
        f"{setting} {lines[0]}." + (f" So in {len(lines)} of its runs." if len(lines) > 1 else "")
        for (setting, _), lines in told.items()
    ]
