"""The next step: what more seeds or more examples are expected to be worth."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.decision.score_noise import ScoreNoise
from analysis.decision.selection import Decision
from analysis.decision.verdict_words import LIKELY, SURE
from analysis.formatting import FEW, percent
from sweep.core.overrides import shell_sweep
from sweep.statistics.next_runs import Plan

_SEEDS, _FACTOR = 2, 4
_WORTH = 0.05  # a smaller gain lies within the error of the estimate


def further_runs(decision: Decision, noise: ScoreNoise, seeds: Sequence[int]) -> str:
    """Two more seeds for each setting, four times the examples, or both: the expected chance that the likeliest pick is
    right after each; empty where it is 95% already. `seeds` are those that there are."""
    found = decision.posterior
    if found is None:
        return ""
    now = float(found.chances.p_right_pick.max())
    if now >= SURE:
        return ""
    named = f"{_SEEDS} more seeds for each setting ({_flag(seeds, len(seeds) + _SEEDS)})"
    plans = {named: Plan(_SEEDS)}
    if noise.n_examples is not None:
        what = "groups of validation examples" if noise.in_groups else "validation examples"
        plans[f"{_FACTOR * noise.n_examples:,} {what} instead of {noise.n_examples:,}"] = Plan(0, _FACTOR)
        plans["both"] = Plan(_SEEDS, _FACTOR)
    worth: dict[str, float] = {}
    for words, plan in plans.items():  # more runs are never expected to be worth less than a part of them
        worth[words] = max(found.after(plan), *worth.values()) if words == "both" else found.after(plan)
    begin = f"The likeliest pick is right with a chance of {percent(now)}."
    expected = "; ".join(f"{words}: {percent(chance)}" for words, chance in worth.items())
    if max(worth.values()) < now + _WORTH:
        close = " The settings are too close for this much noise: decide by memory, or lower the threshold."
        return f"{begin} Further runs are not expected to change much ({expected}).{close if now < LIKELY else ''}"
    return f"To be surer: {_lower(begin)} Expected after further runs: {expected}."


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _flag(seeds: Sequence[int], count: int) -> str:
    """The seeds as one writes them on the command line, those that there are first."""
    following = max(seeds, default=-1) + 1
    numbers = [*seeds, *range(following, following + count - len(seeds))]
    if len(numbers) > FEW and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return shell_sweep("seed", f"range({numbers[0]},{numbers[-1] + 1})")
    return "seed=" + ",".join(map(str, numbers))
