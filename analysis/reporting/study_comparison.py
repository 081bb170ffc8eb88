"""Two studies side by side: the answer of each, the cost of their common settings, and the conditions that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis import formatting
from analysis.charts import pair, style
from analysis.loading import comparability
from analysis.reporting import chances, writer
from analysis.reporting.report import Report
from sweep.core.formatting import table

NAME = "comparison"


@dataclass(frozen=True)
class StudyComparison:
    """Two reports, the first one as the reference."""

    first: Report
    second: Report

    @property
    def reports(self) -> tuple[Report, Report]:
        return self.first, self.second

    @property
    def names(self) -> tuple[str, str]:
        return self.first.study.name, self.second.study.name

    @property
    def title(self) -> str:
        return " and ".join(self.names)

    @property
    def answer(self) -> str:
        """Both selected settings in a sentence, and whether the studies have settings in common."""
        common = set(self.first.settings["setting"]) & set(self.second.settings["setting"])
        without = "" if common else " No setting is in both studies: settings are compared by their names."
        return f"{self._selections}{without}"

    @property
    def _selections(self) -> str:
        one, two = (report.narrative.pick for report in self.reports)
        names = self.names
        if one is None or two is None:
            picks = [
                f"{n} picks {'nothing' if p is None else p.setting}" for n, p in zip(names, (one, two), strict=True)
            ]
            return f"{' and '.join(picks)}: in a study without a pick, nothing was learnt."
        if not self.same_scale:
            return (
                f"{names[0]} selects {one.setting} and {names[1]} selects {two.setting}. Their scores are not "
                f"compared, since they are {self.first.metric} and {self.second.metric}."
            )
        parts = [f"{self.first.metric} {two.score - one.score:+.4f}"]
        if self.same_memory:
            parts.insert(0, f"{formatting.change(two.memory, one.memory)} memory")
        selected = f"{names[0]} selects {one.setting}, {names[1]} {two.setting}"
        if one.setting == two.setting:
            selected = f"Both select {one.setting}"
        return f"{selected}; that of {names[1]} has {' and '.join(parts)}."

    @property
    def same_scale(self) -> bool:
        """Whether scores may stand on one axis."""
        return (self.first.metric, self.first.higher_is_better) == (self.second.metric, self.second.higher_is_better)

    @property
    def same_memory(self) -> bool:
        """Whether memory figures may: the GPU's allocator and the CPU's tensors never do."""
        return self.first.memory_source == self.second.memory_source

    @cached_property
    def differing(self) -> list[tuple[str, str, str]]:
        """(key, first, second) for each condition that is not the same."""
        one, two = ({**made.study.conditions, **comparability.conditions(made.runs)} for made in self.reports)
        pairs = [(key, one.get(key, "—"), two.get(key, "—")) for key in sorted({*one, *two})]
        return [(key, a, b) for key, a, b in pairs if a != b]

    def table(self) -> list[dict[str, str]]:
        """A row per setting of either study, smallest memory first."""
        one, two = (report.settings.set_index("setting") for report in self.reports)
        names = list(dict.fromkeys([*one.sort_values("memory").index, *two.sort_values("memory").index]))
        # A setting that a study lacks has a row of NaN there.
        pairs = zip(one.reindex(names).itertuples(), two.reindex(names).itertuples(), strict=True)
        return [self._row(*pair) for pair in pairs]

    def _row(self, one: Any, two: Any) -> dict[str, str]:
        row = {"setting": str(one.Index)}
        for number, (report, found) in enumerate(zip(self.reports, (one, two), strict=True), start=1):
            row |= {
                f"score{number}": formatting.show_score(found.score, found.score_low, found.score_high),
                f"memory{number}": formatting.show_bytes(found.memory),
                f"verdict{number}": chances.words(found),
                f"tone{number}": chances.TONES.get(found.verdict, ""),
                f"mark{number}": "selected" if found.Index == report.decision.selected else "",
            }
        score_change = formatting.show(two.score - one.score, "+.4f")
        memory_change = formatting.change(two.memory, one.memory)
        row["score_change"] = score_change if self.same_scale else formatting.MISSING
        row["memory_change"] = memory_change if self.same_memory else formatting.MISSING
        return row

    def as_json(self) -> dict[str, Any]:
        return {
            "study": "+".join(self.names),
            "answer": self.answer,
            "differing_conditions": {key: [a, b] for key, a, b in self.differing},
            "first": self.first.as_json(),
            "second": self.second.as_json(),
        }


def write_comparison(made: StudyComparison, out: Path, suffixes: list[str]) -> list[Path]:
    """The comparison's files into `out`."""
    return writer.replace_all(out, str(made.as_json()["study"]), lambda folder: _into(made, folder, suffixes))


def _into(made: StudyComparison, folder: Path, suffixes: list[str]) -> None:
    svg = ""
    if made.same_scale and made.same_memory:
        variants = [str(v) for report in made.reports for v in report.settings["variant"]]
        marks = pair.data(*(report.settings for report in made.reports))
        figure = pair.draw(marks, made.first.metric, made.first.memory_words, made.names, style.looks(variants))
        style.save(figure, folder / NAME, suffixes)
        svg = writer.inline((folder / f"{NAME}.svg").read_text())
    writer.write_csv(pd.DataFrame(made.table()), folder / f"{NAME}.csv")
    writer.render(folder, ("comparison.html", "comparison.md"), made=made, svg=Markup(svg))
    writer.write_answer(folder, made.as_json())


def summary(made: StudyComparison, out: Path) -> str:
    """For the terminal."""
    head = {
        "setting": "setting",
        "score1": made.names[0],
        "score2": made.names[1],
        "score_change": "change",
        "memory1": "memory",
        "memory2": "memory",
        "memory_change": "change",
    }
    rows = [list(head.values()), *([row[key] for key in head] for row in made.table())]
    differ = [f"  {key}: {a} / {b}" for key, a, b in made.differing]
    lines_after = ["Not the same:", *differ] if differ else ["The conditions are the same."]
    lines_after += ["", *(f"{report.study.name}: {report.so_far}" for report in made.reports if report.so_far)]
    return "\n".join(["", table(rows), "", *lines_after, "", made.answer, "", f"Report: {out / 'comparison.html'}"])


def default_folder(options: Mapping[str, Any], first: str, second: str) -> Path:
    """`out`, or reports/<first>-and-<second>."""
    return Path("reports", f"{first}-and-{second}") if options["out"] == "auto" else Path(str(options["out"]))
