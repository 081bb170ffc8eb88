"""The content of a report, before it is written to files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from analysis import formatting
from analysis.charts.names import Short, without_shared
from analysis.decision import learning_rates
from analysis.decision.pareto import hypervolume
from analysis.decision.score_noise import ScoreNoise
from analysis.decision.selection import Decision
from analysis.loading.study import Study
from analysis.loading.varied_keys import with_keys
from analysis.reporting import chances, failures
from analysis.reporting.narrative import Narrative
from sweep.core.measurements import MAX_MEMORY_ALLOCATED, PAGED_BYTES, PEAK_MEMORY_BYTES

MEMORY_WORDS = {
    "cuda_allocator": "peak memory allocated on the GPU while training",
    "cpu_live_tensor_bytes": "peak of live tensor bytes on the CPU while training",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of a report. `allowed` are the conditions that differ and were allowed to; `command` is
    what wrote this report; `nothing_learnt` is the sentence that replaces a recommendation, if not empty."""

    study: Study
    decision: Decision
    noise: ScoreNoise
    metric: str
    memory_metric: str
    allowed: Mapping[str, list[str]] = field(default_factory=dict)
    command: str = ""
    nothing_learnt: str = ""
    more_notes: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()
    latex: Mapping[str, Any] = field(default_factory=dict)  # `columns` and `label` of table.tex

    @property
    def runs(self) -> pd.DataFrame:
        return self.study.runs

    @cached_property
    def settings(self) -> pd.DataFrame:
        """The decision's table, with a column for each key of the config that differs between settings."""
        return with_keys(self.decision.settings, self.runs)

    @property
    def higher_is_better(self) -> bool:
        return self.decision.rule.higher_is_better

    @cached_property
    def narrative(self) -> Narrative:
        seeds = sorted(set(self.study.scored()["seed"].tolist()))
        warned = failures.kinds_of_warnings(self.study.latest())
        return Narrative(self.decision, self.noise, self.metric, seeds, warned)

    @cached_property
    def answer(self) -> str:
        """The recommendation in a sentence, or that there is none."""
        return self.nothing_learnt or self.narrative.answer()

    @cached_property
    def confidence(self) -> str:
        """How reliable the recommendation is."""
        return "" if self.nothing_learnt else self.narrative.confidence()

    @cached_property
    def next_step(self) -> str:
        """What further runs would be worth; empty where none are needed."""
        return "" if self.nothing_learnt else self.narrative.next_step()

    @property
    def threshold_words(self) -> str:
        """The threshold as a phrase."""
        return self.decision.rule.words(self.metric)

    @cached_property
    def failures(self) -> list[failures.Failure]:
        return failures.failures(self.study.latest())

    @property
    def advice(self) -> dict[str, str]:
        return failures.advice(self.failures, self.study.latest())

    @property
    def so_far(self) -> str:
        """The first sentence where the study has not ended."""
        unfinished = self.study.unfinished
        if unfinished:
            return f"The answer so far: {unfinished} run{'s have' if unfinished > 1 else ' has'} not ended."
        return "The answer so far: the study has not ended." if self.study.running else ""

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know about the data."""
        notes = [*self.study.notes, *self.more_notes]
        notes += [
            f"Allowed to differ between the runs: {key} ({', '.join(values)})." for key, values in self.allowed.items()
        ]
        notes += [_without_number(self.study.latest(), "score", "score"),
                 _without_number(self.study.scored(), self.memory_metric, "memory figure")]  # fmt: skip
        repeated = self.runs[self.runs["outcome"] == "ok"].duplicated(["setting", "seed"], keep="last").sum()
        if repeated:
            runs = f"{repeated} runs were" if repeated > 1 else "One run was"
            notes.append(f"{runs} repeated with the same setting and seed: the latest counts.")
        notes += learning_rates.sentences(learning_rates.data(self.runs, self.higher_is_better))
        notes += failures.warnings_of(self.study.latest())
        if self.noise.own_variance is None:
            notes.append(
                "The chances account for the noise of seeds, not for that of the validation examples: "
                f"{self.noise.why_not}."
            )
        return [text for text in notes if text]

    def table(self) -> list[dict[str, Any]]:
        """The settings as a person reads them, smallest memory first; `sort` holds the numbers behind the text."""
        return self._rows

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        ordered = self.settings.sort_values(["memory", "setting"], na_position="last")
        return [
            {
                "setting": str(row.setting),
                "mark": " · ".join(["selected"] * bool(row.selected) + ["best"] * bool(row.best)),
                "score": formatting.show_score(row.score, row.score_low, row.score_high),
                "meets": formatting.MISSING if math.isnan(row.score) else "yes" if row.meets else "no",
                "verdict": chances.words(row),
                "tone": chances.TONES.get(row.verdict, ""),
                "memory": formatting.show_bytes(row.memory),
                "paged": formatting.show_bytes(row.paged_memory) if row.paged_memory > 0 else formatting.MISSING,
                "time": formatting.show(row.train_seconds, ",.1f"),
                "speed": formatting.show(row.tokens_per_second, ",.0f"),
                "energy": formatting.show(row.energy_joules, ",.0f"),
                "trainable": formatting.show(row.trainable_params, ",.0f"),
                "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items()),
                "sort": {
                    "score": _plain(row.score),
                    "meets": "" if math.isnan(row.score) else int(bool(row.meets)),
                    "memory": _plain(row.memory),
                    "paged": _plain(row.paged_memory),
                    "time": _plain(row.train_seconds),
                    "speed": _plain(row.tokens_per_second),
                    "energy": _plain(row.energy_joules),
                    "trainable": _plain(row.trainable_params),
                    "outcomes": row.n_ok,
                },
            }
            for row in ordered.itertuples()
        ]

    @cached_property
    def columns(self) -> dict[str, str]:
        """The table's columns with their headings, without those that no setting has."""
        head = {
            "setting": "setting",
            "score": self.metric.replace("_", " "),
            "meets": "mean reaches the threshold",
            "verdict": "chance to reach it",
            "memory": "peak memory",
            "paged": "paged state",
            "time": "training\u00a0(s)",
            "speed": "tokens/s",
            "energy": "energy\u00a0(J)",
            "trainable": "trainable parameters",
            "outcomes": "runs",
        }
        rows = self.table()
        return {key: words for key, words in head.items() if any(row[key] != formatting.MISSING for row in rows)}

    def hypervolumes(self) -> dict[str, float]:
        """Of the Pareto front of score against memory and against time, where they can be computed."""
        found = {
            name: hypervolume(self.settings[column], self.settings["score"], self.higher_is_better)
            for name, column in (("memory", "memory"), ("time", "train_seconds"))
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    @property
    def versions(self) -> dict[str, str]:
        """What the runs were made with: each version, commit and device, all values where several occur."""
        wanted = [c for c in self.runs.columns if c.startswith("version.") or c in ("commit", "device")]
        values = {column: sorted(set(self.runs[column].dropna().astype(str))) for column in sorted(wanted)}
        return {column.removeprefix("version."): ", ".join(texts) for column, texts in values.items() if texts}

    @property
    def interval_words(self) -> str:
        """What the brackets stand for; empty if no score has them."""
        if self.settings["score_low"].isna().all():
            return ""
        examples = " and over examples like these" if self.noise.own_variance is not None else ", on these examples"
        return f" In brackets: the 95% interval of the true score, the mean over seeds{examples}."

    @cached_property
    def short_names(self) -> Short:
        """The settings' names for charts and titles."""
        return without_shared([str(name) for name in self.settings["setting"]])

    @property
    def memory_source(self) -> str:
        known = self.runs["memory_source"].dropna() if "memory_source" in self.runs else pd.Series(dtype=str)
        return str(known.iloc[0]) if len(known) else "unknown"

    @property
    def memory_words(self) -> str:
        """The label of the memory axis."""
        words = MEMORY_WORDS.get(self.memory_source, "peak memory while training")
        if self.memory_metric == PEAK_MEMORY_BYTES:
            return f"{words}, and paged optimizer state" if self.pages else words
        return words if self.memory_metric == MAX_MEMORY_ALLOCATED else self.memory_metric

    @property
    def pages(self) -> bool:
        """Whether an optimizer keeps state in managed memory."""
        return bool((self.settings["paged_memory"] > 0).any())

    def as_json(self) -> dict[str, Any]:
        """The answer for programs. `best` and `selected` are names in `settings`; what was not measured is null."""
        rule, pick = self.decision.rule, self.narrative.pick
        return {
            "study": self.study.name,
            "metric": self.metric,
            "higher_is_better": rule.higher_is_better,
            "threshold": rule.threshold,
            "margin": rule.margin,
            "score_threshold": self.decision.score_threshold,
            "memory_metric": self.memory_metric,
            "memory_source": self.memory_source,
            "best": self.decision.best,
            "selected": self.decision.selected,
            "answer": self.answer,
            "confidence": self.confidence,
            "next_step": self.next_step,
            "p_right_pick": None if pick is None else _number(pick.p_right_pick),
            "price": self.decision.price,
            "least_expected_loss": self.decision.least_loss,
            "shared_seed_variance": None if self.decision.posterior is None else self.decision.posterior.shared_luck(),
            "hypervolume": self.hypervolumes(),
            "unfinished_runs": self.study.unfinished,
            "settings": [self._setting_json(row) for row in self.settings.itertuples()],
            "allowed": dict(self.allowed),
            "notes": self.notes,
            "conditions": self.study.conditions,
            "versions": self.versions,
            "command": self.study.command,
        }

    def _setting_json(self, row: Any) -> dict[str, Any]:
        return {
            "setting": str(row.setting),
            "variant": str(row.variant),
            "score": _number(row.score),
            "score_sd": _number(row.score_sd),
            "score_ci95": [_number(row.score_low), _number(row.score_high)],
            self.memory_metric: _number(row.memory),
            PAGED_BYTES: _number(row.paged_memory),
            **{column: _number(getattr(row, column)) for column in _MEASURED},
            "n_ok": int(row.n_ok),
            "outcomes": row.outcomes,
            "reason": row.reason,
            "meets": bool(row.meets),
            "verdict": row.verdict,
            "confirmed": bool(row.confirmed),
            **{column: _number(getattr(row, column)) for column in chances.COLUMNS},
        }


_MEASURED = ("train_seconds", "tokens_per_second", "energy_joules", "trainable_params")


def _without_number(runs: pd.DataFrame, column: str, what: str) -> str:
    """A note on `ok` runs that lack a number."""
    ok = runs[runs["outcome"] == "ok"]
    lacking = ok[ok[column].isna()] if column in ok else ok
    if lacking.empty:
        return ""
    names = [f"{row.setting} · seed {row.seed}" for row in lacking.itertuples()]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"These ok runs have no {what}, and its means leave them out: {shown}."


def _plain(value: float) -> str:
    """A number for a machine, nothing where there is none."""
    return "" if value is None or math.isnan(value) else repr(float(value))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
