"""The answer in sentences: what to use, how sure that is, what it costs to be surer, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from analysis import formatting
from analysis.decision.noninferiority import ASSUMED_SD, FAILS, MEETS
from analysis.decision.pick_stability import Stability
from analysis.decision.sample_size import CHANCE, MOST_EXAMPLES, MOST_SEEDS, SampleSize
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.selection import Decision, inconclusive

VERDICT_WORDS = {MEETS: "meets", FAILS: "fails", "inconclusive": "cannot tell"}
_FEW = 6  # names in a sentence


class Row(NamedTuple):
    """One setting that could not be told, in words: `seen` is what the runs show, `next_step` what to do."""

    setting: str
    seen: str
    next_step: str


class Narrative:
    """Sentences about one decision."""

    def __init__(
        self,
        decision: Decision,
        evidence: ScoreNoise,
        stability: Stability | None,
        metric: str,
        seeds: Sequence[int],
    ):
        self._decision = decision
        self._settings = decision.settings.set_index("setting", drop=False).rename_axis(None)
        self._evidence = evidence
        self._stability = stability
        self._metric = metric
        self._seeds = sorted(seeds)
        self.pick = self._settings.loc[decision.pick]
        self.best = self._settings.loc[decision.best]

    @property
    def _alone(self) -> bool:
        return len(self._evidence.scores) == 1

    def answer(self) -> str:
        """The recommendation in a sentence."""
        pick, best = self.pick, self.best
        memory = formatting.show_bytes(pick.memory)
        if self._alone:
            what = "setting there is" if len(self._settings) == 1 else "setting with a score"
            return f"Use {pick.setting}, the only {what}: {self._metric} {pick.score:.4f}, at {memory}."
        if pick.setting == best.setting:
            smaller = self._settings[self._settings["memory"] < pick.memory]
            rest = f"Nothing needs less than its {memory}"
            if len(smaller):
                unknown = " or has no score" if smaller["score"].isna().any() else ""
                rest = f"What needs less than its {memory} misses the bar{unknown}"
            return f"Use {pick.setting}: it has the best {self._metric}, {pick.score:.4f}. {rest}."
        share = ""
        if best.score > 0:
            ratio = pick.score / best.score if self._decision.rule.higher_is_better else best.score / pick.score
            share = f", {ratio:.1%} of the best"
        cost = ""
        if pd.notna(best.memory):
            cost = f" instead of {formatting.show_bytes(best.memory)} ({formatting.change(pick.memory, best.memory)})"
        return (
            f"Use {pick.setting}: {self._metric} {pick.score:.4f}{share} ({best.setting}, {best.score:.4f}), "
            f"at {memory}{cost}."
        )

    def confidence(self) -> str:
        """How sure the answer is: the pick's verdict, those of the smaller settings, and how stable the pick is."""
        return " ".join(filter(None, [self._unsteady(), self._standing(), self._stable(), self._one_seed()]))

    def _standing(self) -> str:
        if self._alone:
            return "With nothing to compare it with, it is the best by definition: run other settings, too."
        pick = self.pick
        smaller = self._settings[(self._settings["memory"] < pick.memory) & self._settings["score"].notna()]
        open_smaller = [str(s) for s in smaller.loc[smaller["verdict"] != FAILS, "setting"]]
        if pick.verdict == MEETS and not open_smaller:
            rest = " and everything that needs less misses it" if len(smaller) else ""
            return f"Firm: also when chance is allowed for, {pick.setting} reaches the bar{rest}."
        if pick.verdict == MEETS:
            return (
                f"Safe, but perhaps not the smallest: also when chance is allowed for, {pick.setting} reaches the bar; "
                f"whether {few(open_smaller)} would do with less memory cannot be told from these runs."
            )
        firm = self._settings[self._settings["verdict"] == MEETS].sort_values(["memory", "setting"])
        text = f"Tentative: that {pick.setting} reaches the bar may be luck; these runs cannot tell."
        if len(firm):
            safe = firm.iloc[0]
            text += (
                f" The smallest that reaches it also when chance is allowed for is {safe.setting}, at "
                f"{formatting.show_bytes(safe.memory)}."
            )
        return text

    def _unsteady(self) -> str:
        """The mean of the survivors flatters a setting that does not always survive."""
        for name in dict.fromkeys([self._decision.pick, self._decision.best]):
            lost = {k: n for k, n in self._settings.loc[name, "outcomes"].items() if k in ("oom", "diverged")}
            if lost:
                words = " and ".join(f"{count} {outcome}" for outcome, count in lost.items())
                return f"Careful: of {name}'s replicates {words}, and its score is the mean of the others."
        return ""

    def _stable(self) -> str:
        found = self._stability
        if found is None or self._alone:
            return ""
        others = [(name, share) for name, share in found.picks.items() if name != self._decision.pick and share >= 0.05]
        instead = ", ".join(f"{name} ({share:.0%})" for name, share in others[:3])
        rest = f", and otherwise mostly {instead}" if instead else ""
        return (
            f"Pick stability: with other {found.over}, drawn at random from these, {found.share:.0%} of the picks "
            f"would be the same{rest}."
        )

    def _one_seed(self) -> str:
        if (self._evidence.seeds > 1).any() or self._alone:
            return ""
        return (
            "With one seed per setting, nothing is known of how much another seed changes a score: "
            f"{ASSUMED_SD:.0%} of the best score is assumed, and only what is far from the bar gets a verdict."
        )

    def runner_up(self) -> list[str]:
        """What another choice costs: the next larger setting that reaches the bar, and the best of the smaller ones."""
        pick = self.pick
        ranked = self._settings[self._settings["memory"].notna() & self._settings["score"].notna()]
        others = ranked[(ranked["setting"] != pick.setting)]
        up = others[others["meets"].astype(bool)].sort_values(["memory", "setting"])
        down = others[~others["meets"].astype(bool) & (others["memory"] < pick.memory)]
        down = down.sort_values("score", ascending=not self._decision.rule.higher_is_better)
        sentences = []
        if len(up):
            sentences.append(f"The runner-up, {up.iloc[0].setting}, reaches the bar, too: {self._against(up.iloc[0])}.")
        if len(down):
            nearest = down.iloc[0]
            missed = abs(nearest.score - self._decision.bar)
            sentences.append(
                f"Of those that need less memory, {nearest.setting} scores best, and misses the bar by {missed:.4f}: "
                f"{self._against(nearest)}."
            )
        if not sentences and len(others):
            nearest = others.sort_values("score", ascending=not self._decision.rule.higher_is_better).iloc[0]
            sentences.append(
                f"No other setting reaches the bar. Nearest is {nearest.setting}: {self._against(nearest)}."
            )
        return sentences or ["There is no other setting with both a score and a memory figure."]

    def _against(self, other: pd.Series) -> str:
        pick = self.pick
        memory = formatting.change(other.memory, pick.memory)
        parts = [
            f"as much memory as {pick.setting}" if memory == "the same" else f"{memory} memory than {pick.setting}",
            f"{self._metric} {other.score:.4f} instead of {pick.score:.4f}",
        ]
        for column, name in (("train_seconds", "training time"), ("energy_joules", "energy")):
            if pd.notna(other[column]) and pd.notna(pick[column]) and pick[column] > 0:
                parts.append(f"{formatting.change(other[column], pick[column])} {name}")
        return f"{', '.join(parts)} (verdict: {VERDICT_WORDS[other.verdict]})"

    def open_questions(self) -> list[Row]:
        """What could not be told, smallest memory first, and what would settle it; last what nothing would."""
        rows = [row for _, row in inconclusive(self._settings).iterrows()]
        return [self._question(row) for row in sorted(rows, key=lambda row: row.settlement.hopeless)]

    def _question(self, row: pd.Series) -> Row:
        settlement: SampleSize = row.settlement
        distance = row.score - self._decision.bar
        if not self._decision.rule.higher_is_better:
            distance = -distance
        side = "above" if distance >= 0 else "below"
        score = f"{self._metric} {formatting.show_score(row.score, row.score_halfwidth)}"
        rival = ""
        if settlement.rival != row.setting:
            rival = f" It was compared with {settlement.rival}, which may be the true best."
        seen = f"{score} is {abs(distance):.4f} {side} the bar, which may be chance.{rival}"
        return Row(str(row.setting), seen, self._next_step(settlement))

    def _next_step(self, settlement: SampleSize) -> str:
        if settlement.first_look:
            return (
                f"Run {settlement.seeds} seeds each ({self._flag(settlement.seeds)}): with one, luck and merit look "
                "the same."
            )
        if settlement.hopeless:
            return (
                f"Too close to call for this much noise: not even {MOST_SEEDS} seeds or {MOST_EXAMPLES:,} validation "
                "examples would be likely to tell. Let memory decide, or lower the threshold."
            )
        parts = []
        if settlement.seeds:
            more = max(1, settlement.seeds - int(self._evidence.seeds.max()))
            parts.append(f"{more} more seed{'s' if more > 1 else ''} for each setting ({self._flag(settlement.seeds)})")
        if settlement.examples and self._evidence.n_examples:
            what = "groups of validation examples" if self._evidence.in_groups else "validation examples"
            parts.append(f"{settlement.examples:,} {what} instead of {self._evidence.n_examples:,}")
        return (
            f"{' and '.join(parts)} would tell with a chance of {CHANCE:.0%}, if the true difference is the one seen "
            "so far."
        )

    def _flag(self, seeds: int | None) -> str:
        """The seeds as one writes them on the command line, those that there are first."""
        numbers = list(self._seeds)
        following = max(numbers, default=-1) + 1
        while len(numbers) < (seeds or 0):
            numbers.append(following)
            following += 1
        if len(numbers) > _FEW and numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"seed=range({numbers[0]},{numbers[-1] + 1})"
        return "seed=" + ",".join(map(str, numbers))


def few(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")
