"""The answer in sentences: what to use, how reliable that is, what would make it more reliable, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from analysis import formatting
from analysis.decision.noninferiority import FAILS, MEETS
from analysis.decision.pick_stability import Stability
from analysis.decision.sample_size import CHANCE, MOST_EXAMPLES, MOST_SEEDS, SampleSize
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.seed_variance import ASSUMED_SD
from analysis.decision.selection import Decision, inconclusive
from analysis.formatting import FEW, few
from sweep.core.overrides import shell_sweep

VERDICT_WORDS = {MEETS: "meets", FAILS: "fails", "inconclusive": "inconclusive"}


class Row(NamedTuple):
    """One inconclusive setting: `seen` is what the runs show, `next_step` what to do."""

    setting: str
    seen: str
    next_step: str


class Narrative:
    """Sentences about one decision. `warned` has the warnings of each setting's runs, in short."""

    def __init__(
        self,
        decision: Decision,
        noise: ScoreNoise,
        stability: Stability | None,
        metric: str,
        seeds: Sequence[int],
        warned: Mapping[str, Sequence[str]],
    ):
        self._decision = decision
        self._settings = decision.settings.set_index("setting", drop=False).rename_axis(None)
        self._noise = noise
        self._stability = stability
        self._metric = metric
        self._seeds = sorted(seeds)
        self._warned = warned
        self.pick = None if decision.selected is None else self._settings.loc[decision.selected]
        self.best = self._settings.loc[decision.best]

    @property
    def _alone(self) -> bool:
        return len(self._noise.scores) == 1

    def answer(self) -> str:
        """The recommendation in a sentence."""
        pick, best = self.pick, self.best
        memory = formatting.show_bytes(pick.memory)
        if self._alone:
            what = "setting" if len(self._settings) == 1 else "setting with a score"
            return f"Use {pick.setting}, the only {what}: {self._metric} {pick.score:.4f}, at {memory}."
        if pick.setting == best.setting:
            smaller = self._settings[self._settings["memory"] < pick.memory]
            rest = f"No setting needs less than its {memory}"
            if len(smaller):
                unknown = " or has no score" if smaller["score"].isna().any() else ""
                rest = f"Every setting that needs less than its {memory} misses the threshold{unknown}"
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
        parts = [self._unsteady(), self._doubted(), self._standing(), self._stable(), self._one_seed()]
        return " ".join(filter(None, parts))

    def _standing(self) -> str:
        if self._alone:
            return "There is nothing to compare it with: run other settings, too."
        pick = self.pick
        smaller = self._settings[(self._settings["memory"] < pick.memory) & self._settings["score"].notna()]
        open_smaller = [str(s) for s in smaller.loc[smaller["verdict"] != FAILS, "setting"]]
        if pick.verdict == MEETS and not open_smaller:
            rest = ", and every setting that needs less memory misses it" if len(smaller) else ""
            return f"Confirmed: {pick.setting} reaches the threshold also when noise is accounted for{rest}."
        if pick.verdict == MEETS:
            return (
                f"Confirmed, but perhaps not the smallest: {pick.setting} reaches the threshold also when noise is "
                f"accounted for. These runs do not show whether {few(open_smaller)} would reach it with less memory."
            )
        confirmed = self._settings[self._settings["verdict"] == MEETS].sort_values(["memory", "setting"])
        text = f"Not confirmed: {pick.setting} reaches the threshold, but this may be chance."
        if len(confirmed):
            smallest = confirmed.iloc[0]
            text += (
                f" The smallest setting that reaches it also when noise is accounted for is {smallest.setting}, at "
                f"{formatting.show_bytes(smallest.memory)}."
            )
        return text

    def _unsteady(self) -> str:
        """A mean over the runs that ended well is too good for a setting that does not always end well."""
        for name in dict.fromkeys([self._decision.selected, self._decision.best]):
            lost = {k: n for k, n in self._settings.loc[name, "outcomes"].items() if k in ("oom", "diverged")}
            if lost:
                words = " and ".join(f"{count} {outcome}" for outcome, count in lost.items())
                return f"Warning: not all replicates of {name} are ok ({words}). Its score is the mean of the others."
        return ""

    def _doubted(self) -> str:
        """The warnings of the runs of the pick, and of the best, on whose score the threshold rests."""
        names = [str(name) for name in dict.fromkeys([self._decision.selected, self._decision.best])]
        return " ".join(f"Doubtful: of {n}, {'; '.join(self._warned[n])}." for n in names if self._warned.get(n))

    def _stable(self) -> str:
        found = self._stability
        if found is None or self._alone:
            return ""
        others = {name: share for name, share in found.shares.items() if name != self._decision.selected}
        instead = ", ".join(f"{name} ({share:.0%})" for name, share in list(others.items())[:3] if share >= 0.05)
        rest = f", and otherwise mostly {instead}" if instead else ""
        return (
            f"Stability of the selection: if {found.over} are drawn again from these runs at random, the same setting "
            f"is selected in {found.share:.0%} of the cases{rest}."
        )

    def _one_seed(self) -> str:
        if (self._noise.seeds > 1).any() or self._alone:
            return ""
        return (
            "With one seed per setting, the noise between seeds is unknown: "
            f"{ASSUMED_SD:.0%} of the best score is assumed, and only settings far from the threshold get a verdict."
        )

    def runner_up(self) -> list[str]:
        """What another choice costs: the next larger setting that reaches the threshold, and the best of the smaller
        ones. Ties go to the better score or the smaller memory, then to fewer trainable parameters, then to the name.
        """
        if self.pick is None:
            return []
        pick = self.pick
        ranked = self._settings[self._settings["memory"].notna() & self._settings["score"].notna()]
        loss = -ranked["score"] if self._decision.rule.higher_is_better else ranked["score"]
        others = ranked.assign(loss=loss)[ranked["setting"] != pick.setting]
        others = others.sort_values(["loss", "memory", "trainable_params", "setting"])
        meets = others["meets"].astype(bool)
        up = others[meets].sort_values(["memory", "loss", "trainable_params", "setting"])
        down = others[~meets & (others["memory"] < pick.memory)]
        sentences = []
        if len(up):
            near = up.iloc[0]
            sentences.append(f"The runner-up, {near.setting}, reaches the threshold, too: {self._against(near)}.")
        if len(down):
            near = down.iloc[0]
            missed = abs(near.score - self._decision.score_threshold)
            sentences.append(
                f"Of those that need less memory, {near.setting} scores best. It misses the threshold by {missed:.4f}: "
                f"{self._against(near)}."
            )
        if not sentences and len(others):
            near = others.iloc[0]
            sentences.append(
                f"No other setting reaches the threshold. Nearest is {near.setting}: {self._against(near)}."
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
        """The inconclusive settings, smallest memory first, each with what would give a verdict; last those that no
        reasonable number of runs would decide."""
        if self.pick is None:  # more seeds of what learnt nothing would show nothing
            return []
        rows = [row for _, row in inconclusive(self._settings).iterrows()]
        return [self._question(row) for row in sorted(rows, key=lambda row: row.sample_size.hopeless)]

    def next_steps(self) -> dict[str, list[Row]]:
        """The open questions by their next step: many settings often need the same one."""
        by_step: dict[str, list[Row]] = {}
        for row in self.open_questions():
            by_step.setdefault(row.next_step, []).append(row)
        return by_step

    def _question(self, row: pd.Series) -> Row:
        sample_size: SampleSize = row.sample_size
        distance = row.score - self._decision.score_threshold
        side = "above" if (distance if self._decision.rule.higher_is_better else -distance) >= 0 else "below"
        score = f"{self._metric} {formatting.show_score(row.score, row.score_interval)}"
        rival = ""
        if sample_size.rival != row.setting:
            rival = f" It was compared with {sample_size.rival}, which may be the true best."
        seen = f"{score} is {abs(distance):.4f} {side} the threshold, which may be chance.{rival}"
        return Row(str(row.setting), seen, self._next_step(sample_size))

    def _next_step(self, sample_size: SampleSize) -> str:
        seeds = sample_size.seeds or 0
        if sample_size.first_look:
            return f"Run {seeds} seeds each ({self._flag(seeds)}): with one, chance and quality cannot be separated."
        if sample_size.hopeless:
            return (
                f"The difference is too small for this much noise: not even {MOST_SEEDS} seeds or {MOST_EXAMPLES:,} "
                "validation examples would probably give a verdict. Decide by memory, or lower the threshold."
            )
        parts = []
        if seeds:
            more = max(1, seeds - int(self._noise.seeds.max()))
            parts.append(f"{more} more seed{'s' if more > 1 else ''} for each setting ({self._flag(seeds)})")
        if sample_size.examples and self._noise.n_examples:
            what = "groups of validation examples" if self._noise.in_groups else "validation examples"
            parts.append(f"{sample_size.examples:,} {what} instead of {self._noise.n_examples:,}")
        return (
            f"{' and '.join(parts)} would give a verdict with a probability of {CHANCE:.0%}, if the true difference is "
            "the one seen so far."
        )

    def _flag(self, seeds: int) -> str:
        """The seeds as one writes them on the command line, those that there are first."""
        following = max(self._seeds, default=-1) + 1
        numbers = [*self._seeds, *range(following, following + seeds - len(self._seeds))]
        if len(numbers) > FEW and numbers == list(range(numbers[0], numbers[-1] + 1)):
            return shell_sweep("seed", f"range({numbers[0]},{numbers[-1] + 1})")
        return "seed=" + ",".join(map(str, numbers))
