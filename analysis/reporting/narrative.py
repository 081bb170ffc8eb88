"""The answer in sentences: what to use, with what chance that is right, and what another choice costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import formatting
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.selection import Decision
from analysis.decision.verdict_words import MISSES, REACHES, SURE
from analysis.formatting import percent
from analysis.reporting.further_runs import further_runs
from sweep.statistics.seed_luck import MEDIAN

_MOST = 3  # smaller settings that a sentence names
_SLIGHT = 0.05
_ASSUMED = 0.2  # the chances under two priors that differ by more than this are a matter of the prior
_LEAST_SHARE = 0.5  # of the best score: a threshold below this helps nobody


class Narrative:
    """Sentences about one decision. `warned` has the warnings of each setting's runs, in short."""

    def __init__(
        self,
        decision: Decision,
        noise: ScoreNoise,
        metric: str,
        seeds: Sequence[int],
        warned: Mapping[str, Sequence[str]],
    ):
        self._decision = decision
        self._settings = decision.settings.set_index("setting", drop=False).rename_axis(None)
        self._noise = noise
        self._metric = metric
        self._seeds = sorted(seeds)
        self._warned = warned
        self.pick = None if decision.selected is None else self._settings.loc[decision.selected]
        self.best = self._settings.loc[decision.best]

    @property
    def _alone(self) -> bool:
        return len(self._noise.scores) == 1

    @property
    def _threshold(self) -> str:
        return self._decision.rule.short_words

    def answer(self) -> str:
        """The recommendation, and its chance to reach the threshold."""
        pick, best = self.pick, self.best
        memory = formatting.show_bytes(pick.memory)
        if self._alone:
            what = "setting" if len(self._settings) == 1 else "setting with a score"
            return f"Use {pick.setting}, the only {what}: {self._metric} {pick.score:.4f}, at {memory}."
        verb = "reach" if self._decision.rule.margin is None else "be"
        chance = f"Its chance to {verb} {self._threshold} is {percent(pick.p_reaches_bar)}."
        if pick.setting == best.setting:
            return f"Use {pick.setting} ({memory}): it has the best {self._metric}, {pick.score:.4f}. {chance}"
        share = ""
        if best.score > 0:
            ratio = pick.score / best.score if self._decision.rule.higher_is_better else best.score / pick.score
            share = f", {ratio:.1%} of the best"
        cost = ""
        if pd.notna(best.memory):
            cost = f" instead of {formatting.show_bytes(best.memory)} ({formatting.change(pick.memory, best.memory)})"
        return (
            f"Use {pick.setting}: {self._metric} {pick.score:.4f}{share} ({best.setting}, {best.score:.4f}), "
            f"at {memory}{cost}. {chance}"
        )

    def confidence(self) -> str:
        """How sure the answer is, what the smaller settings do, and what another choice is expected to cost."""
        if self._alone:
            parts = [self._unsteady(), self._doubted(), "There is nothing to compare it with: run other settings, too."]
        else:
            parts = [self._unsteady(), self._doubted(), self._right(), self._smaller(), self._enough(), self._losses(),
                     self._assumed()]  # fmt: skip
        return " ".join(filter(None, parts))

    def next_step(self) -> str:
        """What further runs would be worth; empty where the pick is sure, or nothing is recommended."""
        if self.pick is None or self._alone:
            return ""
        return further_runs(self._decision, self._noise, self._seeds)

    def _right(self) -> str:
        pick = self.pick
        text = f"Chance that {pick.setting} is the smallest that reaches it: {percent(pick.p_right_pick)}."
        likeliest = self._settings["p_right_pick"].idxmax()
        if self._settings.loc[likeliest, "p_right_pick"] > pick.p_right_pick:
            text += f" The likeliest is {likeliest}, {percent(self._settings.loc[likeliest, 'p_right_pick'])}."
        smaller = self._smaller_settings()
        if pick.confirmed and pick.p_reaches_bar >= SURE:
            rest = ""
            if (smaller["confirmed"] & (smaller["p_reaches_bar"] < 0.5)).all() and len(smaller):
                rest = ", and that each smaller setting misses it"
            text += f" Confirmed: tests show, too, that {pick.setting} reaches it{rest}."
        return text

    def _smaller_settings(self) -> pd.DataFrame:
        found = self._settings
        found = found[(found["memory"] < self.pick.memory) & found["score"].notna()]
        return found.sort_values(["p_reaches_bar", "memory"], ascending=[False, True])

    def _smaller(self) -> str:
        smaller = self._smaller_settings()
        if smaller.empty:
            return "No setting with a score needs less memory."
        if (smaller["verdict"] == MISSES).all():
            return "Each smaller setting misses it with a chance of at least 95%."
        named = smaller[smaller["p_reaches_bar"] > _SLIGHT][:_MOST]
        first, *others = (row for _, row in named.iterrows())
        parts = [f"{first.setting} ({self._against_pick(first)}) {percent(first.p_reaches_bar)}{self._miss(first)}"]
        parts += [f"{row.setting} {percent(row.p_reaches_bar)}" for row in others]
        rest = len(smaller) - len(named)
        most = smaller["p_reaches_bar"].iloc[len(named)] if rest else 0.0
        more = f"; {rest} more, at most {max(most, 0.01):.0%} each" if rest else ""
        return f"Chance of the smaller ones to reach it: {'; '.join(parts)}{more}."

    def _against_pick(self, row: pd.Series) -> str:
        return f"{formatting.show_bytes(row.memory)}, {formatting.change(row.memory, self.pick.memory)}"

    def _miss(self, row: pd.Series) -> str:
        """By how much a setting misses the threshold, on average where it does."""
        if row.verdict == REACHES:
            return ""
        missed = row.expected_score_loss / (1 - row.p_reaches_bar)
        return f", and where it misses, by about {self._loss(missed)}"

    def _loss(self, loss: float) -> str:
        """A difference of scores: of the best score, where the threshold is a share of it."""
        if self._decision.rule.margin is not None or not self.best.score:
            return f"{loss:.4f}"
        share = loss / abs(self.best.score)
        return f"{share:.1%} of the best" if share >= 0.001 or share == 0 else "less than 0.1% of the best"

    def _enough(self) -> str:
        """The strictest threshold that a smaller setting reaches with a chance of 95%."""
        found, rule = self._decision.posterior, self._decision.rule
        smaller = self._smaller_settings()
        if found is None or smaller.empty:
            return ""
        at = {str(name): self._noise.settings.index(str(name)) for name in smaller["setting"]}
        reached = {name: _rounded(found.threshold_of(k), rule.margin) for name, k in at.items()}
        least = max(reached.values()) if rule.margin is None else min(reached.values())
        names = [name for name, value in reached.items() if value == least]
        name = str(smaller.loc[names].sort_values(["memory", "setting"])["setting"].iloc[0])
        if rule.margin is None and not _LEAST_SHARE <= least < rule.threshold:
            return ""
        if rule.margin is not None and least <= rule.margin:
            return ""
        other = rule._replace(threshold=least) if rule.margin is None else rule._replace(margin=least)
        chance = percent(found.p_reaches(at[name], other))
        how = f"If {other.short_words} is enough" if rule.margin is None else f"If {least:.4g} below the best is enough"
        return f"{how}: {name} ({self._against_pick(smaller.loc[name])}), {chance}."

    def _losses(self) -> str:
        """The setting of least expected loss, and what it and the pick cost if they are wrong."""
        name = self._decision.least_loss
        if name is None:
            return ""
        price = f"price={self._decision.price:g}"
        if name == self.pick.setting:
            return f"The least expected loss at {price} is that of {name}, too: {self._cost(self.pick)}."
        return (
            f"The least expected loss at {price} is that of {name}: {self._cost(self._settings.loc[name])}; "
            f"of {self.pick.setting}: {self._cost(self.pick)}."
        )

    def _cost(self, row: pd.Series) -> str:
        memory = f"{row.expected_memory_overspent:.0%} more memory than needed"
        return f"{memory}, and a miss of {self._loss(row.expected_score_loss)}, on average"

    def _assumed(self) -> str:
        """What is assumed, and not seen in these runs."""
        parts = []
        if not (self._noise.seeds > 1).any():
            parts.append(
                "With one seed per setting, the noise between seeds is assumed, not measured: a standard deviation "
                f"of about {MEDIAN:.1%} of the best score."
            )
        found = self._decision.posterior
        if found is not None:
            gap = np.abs(np.diff(found.chances.by_prior, axis=0))[0]
            k = int(gap.argmax())
            if gap[k] > _ASSUMED:
                low, high = sorted(found.chances.by_prior[:, k])
                parts.append(
                    "These runs leave much to the prior, which assumes how scores of settings lie: the chance of "
                    f"{self._noise.settings[k]} to reach it is {percent(low)} or {percent(high)} under its two parts."
                )
        return " ".join(parts)

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
        return f"{', '.join(parts)} (chance to reach it: {percent(other.p_reaches_bar)})"


def _rounded(threshold: float, margin: float | None) -> float:
    """Down to half a percent; a distance up to two digits."""
    if margin is None:
        return math.floor(threshold * 200 + 1e-9) / 200
    digits = 10 ** (math.floor(math.log10(threshold)) - 1) if threshold > 0 else 1.0
    return math.ceil(threshold / digits - 1e-9) * digits
