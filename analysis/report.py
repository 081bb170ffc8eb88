"""The only writer of files: charts, tables, the answer for people (Markdown, HTML) and for programs (JSON)."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis import units
from analysis.charts import cost_curve, style
from analysis.decide import Decision
from analysis.load import Study

MEMORY_WORDS = {
    "cuda_allocator": "peak memory allocated on the GPU while training",
    "cpu_live_tensor_bytes": "peak of live tensor bytes on the CPU while training",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report says, before it is written."""

    study: Study
    decision: Decision
    metric: str
    higher_is_better: bool
    threshold: float
    margin: float | None
    memory_metric: str

    @property
    def runs(self) -> pd.DataFrame:
        return self.study.runs

    @property
    def settings(self) -> pd.DataFrame:
        return self.decision.settings

    def setting(self, name: str) -> pd.Series:
        return self.settings.set_index("setting", drop=False).loc[name]

    @property
    def bar_words(self) -> str:
        """What has to be reached, in words."""
        if self.margin is not None:
            return f"within {self.margin:g} of the best {self.metric}"
        return f"{self.threshold:.4g} × the best {self.metric}"

    @property
    def answer(self) -> str:
        """The recommendation in a sentence."""
        pick, best = self.setting(self.decision.pick), self.setting(self.decision.best)
        memory = units.show_bytes(pick.memory)
        if pick.setting == best.setting:
            smaller = self.settings[self.settings["memory"] < pick.memory]
            rest = f"Nothing needs less than its {memory}"
            if len(smaller):
                rest = f"What needs less than its {memory} misses the bar"
            return f"Use {pick.setting}: it has the best {self.metric}, {pick.score:.4f}. {rest}."
        saved = 1 - pick.memory / best.memory
        ratio = pick.score / best.score if self.higher_is_better else best.score / pick.score
        share = f", {ratio:.1%} of the best" if best.score > 0 else ""
        return (
            f"Use {pick.setting}: {self.metric} {pick.score:.4f}{share} ({best.setting}, {best.score:.4f}), at "
            f"{memory} instead of {units.show_bytes(best.memory)} ({saved:.0%} less)."
        )

    @property
    def caveat(self) -> str:
        """How much the answer rests on: the literal rule knows no noise."""
        return " ".join(filter(None, [self._unsteady(), self._noise()]))

    def _unsteady(self) -> str:
        """The mean of the survivors flatters a setting that does not always survive."""
        for name in dict.fromkeys([self.decision.pick, self.decision.best]):
            lost = {k: n for k, n in self.setting(name).outcomes.items() if k in ("oom", "diverged")}
            if lost:
                words = " and ".join(f"{count} {outcome}" for outcome, count in lost.items())
                return f"Careful: of {name}'s replicates {words}, and its score is the mean of the others."
        return ""

    def _noise(self) -> str:
        fewest = int(self.settings.loc[self.settings["n_ok"] > 0, "n_ok"].min())
        if fewest < 2:
            return (
                "This is the literal rule on single runs: with one seed per setting, nothing is known of the noise. "
                "Repeat the study with more seeds (seed=0,1,2) before spending much on it."
            )
        near = self._within_noise()
        if near:
            return (
                f"This is the literal rule on means. The 95% interval of {', '.join(near)} reaches across the bar: "
                "more seeds may change the answer."
            )
        return "This is the literal rule on means; no setting's 95% interval reaches across the bar."

    def _within_noise(self) -> list[str]:
        near = (self.settings["score"] - self.decision.bar).abs() <= self.settings["score_halfwidth"]
        return [str(name) for name in self.settings.loc[near, "setting"]]

    @property
    def unfinished(self) -> int:
        """Rows whose process is still at work, or died with its coordinator."""
        return int(self.runs["running"].sum())

    def table(self) -> list[dict[str, str]]:
        """The settings as a person reads them, smallest memory first."""
        ordered = self.settings.sort_values(["memory", "setting"], na_position="last")
        return [
            {
                "setting": str(row.setting),
                "mark": "pick" if row.pick else "best" if row.best else "",
                "score": units.show_score(row.score, row.score_halfwidth),
                "meets": "yes" if row.meets else "no",
                "memory": units.show_bytes(row.memory),
                "time": units.show(row.train_seconds, ".1f"),
                "speed": units.show(row.tokens_per_second, ",.0f"),
                "trainable": units.show(row.trainable_params, ",.0f"),
                "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items()),
            }
            for row in ordered.itertuples()
        ]

    def as_json(self) -> dict[str, Any]:
        """The answer for programs. `best` and `pick` are names in `settings`; what was not measured is null."""
        return {
            "study": self.study.name,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "threshold": self.threshold,
            "margin": self.margin,
            "bar": self.decision.bar,
            "memory_metric": self.memory_metric,
            "memory_source": self.memory_source,
            "best": self.decision.best,
            "pick": self.decision.pick,
            "answer": self.answer,
            "unfinished_runs": self.unfinished,
            "settings": [
                {
                    "setting": str(row.setting),
                    "variant": str(row.variant),
                    "score": _number(row.score),
                    "score_sd": _number(row.score_sd),
                    "score_ci95_halfwidth": _number(row.score_halfwidth),
                    self.memory_metric: _number(row.memory),
                    "train_seconds": _number(row.train_seconds),
                    "tokens_per_second": _number(row.tokens_per_second),
                    "trainable_params": _number(row.trainable_params),
                    "n_ok": int(row.n_ok),
                    "outcomes": row.outcomes,
                    "reason": row.reason,
                    "meets": bool(row.meets),
                }
                for row in self.settings.itertuples()
            ],
            "conditions": self.study.conditions,
            "command": self.study.command,
        }

    @property
    def memory_source(self) -> str:
        known = self.runs["memory_source"].dropna() if "memory_source" in self.runs else pd.Series(dtype=str)
        return str(known.iloc[0]) if len(known) else "unknown"

    @property
    def memory_words(self) -> str:
        """What the memory axis shows."""
        if self.memory_metric != "max_memory_allocated":
            return self.memory_metric
        return MEMORY_WORDS.get(self.memory_source, "peak memory while training")

    def failures(self) -> list[dict[str, str]]:
        """Runs that did not end well, with what they said."""
        bad = self.runs[(self.runs["outcome"] != "ok") & ~self.runs["running"]]
        return [
            {"run": f"{row.setting} · seed {row.seed}", "outcome": str(row.outcome), "reason": str(row.reason)}
            for row in bad.itertuples()
        ]


def write(report: Report, out: Path) -> list[Path]:
    """All files of a report into `out`, at once: one that fails half-way leaves the folder as it was. Returns them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write_into(report, scratch)
        out.mkdir(exist_ok=True)
        return [file.replace(out / file.name) for file in sorted(scratch.iterdir())]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_into(report: Report, folder: Path) -> None:
    charts = _draw(report, folder)
    report.runs.drop(columns=["conditions.values"], errors="ignore").to_csv(folder / "runs.csv", index=False)
    _flat(report).to_csv(folder / "settings.csv", index=False)
    (folder / "recommendation.json").write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    svgs = {name: Markup(_inline((folder / f"{name}.svg").read_text())) for name in charts}
    for template in ("report.md", "report.html"):
        text = environment.get_template(f"{template}.j2").render(report=report, charts=svgs)
        (folder / template).write_text(text)


def _draw(report: Report, folder: Path) -> list[str]:
    """The names of the charts that had something to show."""
    drawn = []
    curves = [
        ("score_against_memory", "memory", report.memory_metric, f"{report.memory_words} [bytes]"),
        ("score_against_time", "train_seconds", "train_seconds", "training time [s]"),
    ]
    for name, cost, cost_of_run, label in curves:
        marks = cost_curve.data(report.decision, report.runs, cost, cost_of_run, report.higher_is_better)
        if (marks["kind"] == "setting").any():
            title = _title(report, cost)
            score_label = report.metric.replace("_", " ") + (
                " on validation" if report.higher_is_better else " on validation (lower is better)"
            )
            figure = cost_curve.draw(
                marks,
                title=title,
                cost_label=label,
                score_label=score_label,
                bar=report.decision.bar,
                bar_label=report.bar_words.replace("_", " "),
            )
            style.save(figure, folder / name)
            drawn.append(name)
    return drawn


def _title(report: Report, cost: str) -> str:
    pick = report.setting(report.decision.pick)
    if cost == "memory":
        return f"{pick.setting} is the smallest that reaches the bar"
    known = report.settings.dropna(subset=[cost, "score"])
    quickest = known.loc[known[known["meets"].astype(bool)][cost].idxmin(), "setting"]
    return f"{quickest} is the quickest that reaches the bar"


def _flat(report: Report) -> pd.DataFrame:
    """The settings for a spreadsheet: the memory column under its own name, outcomes as text."""
    flat = report.settings.rename(columns={"memory": report.memory_metric})
    return flat.assign(outcomes=[", ".join(f"{n} {o}" for o, n in outcomes.items()) for outcomes in flat["outcomes"]])


def _inline(svg: str) -> str:
    """An SVG file as part of a page: without the prologue, as wide as its column."""
    return svg[svg.index("<svg") :]


def _number(value: float) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
