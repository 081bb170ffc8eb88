"""One analysis from options to files, and the text that is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis import comparable, report
from analysis.decide import decide
from analysis.load import Store, Study
from analysis.settings import settings
from sweep.errors import UserError, alternatives
from sweep.record import is_memory


def answer(options: Mapping[str, Any]) -> str:
    """Write the report of `options["study"]` and return its summary for the terminal.

    Raises:
        UserError: where there is no such study, nothing to decide on, or runs that do not compare.
    """
    tracking = options["tracking"]
    store = Store(str(tracking["uri"]), str(tracking["experiment"]))
    study = store.study(str(options["study"]))
    comparable.require_comparable(study.runs)
    made = build(study, float(options["threshold"]), options["margin"], str(options["memory_metric"]))
    out = Path(str(options["out"]))
    files = report.write(made, out)
    store.log_report(study.parent_id, files, f"**{made.answer}**\n\n{made.caveat}", {"pick": made.decision.pick})
    return summary(made, out)


def build(study: Study, threshold: float, margin: float | None, memory_metric: str) -> report.Report:
    """The report's content."""
    runs = study.runs
    known = [column for column in runs.select_dtypes("number").columns if is_memory(column)]
    if memory_metric not in known and (runs["outcome"] == "ok").any():
        raise UserError(
            f"memory_metric = {memory_metric} is no memory that was measured; {alternatives(memory_metric, known)}"
        )
    higher = runs["direction"].iloc[0] != "minimize"
    decision = decide(settings(runs, memory_metric), threshold=threshold, margin=margin, higher_is_better=higher)
    return report.Report(
        study=study,
        decision=decision,
        metric=str(runs["metric"].iloc[0]),
        higher_is_better=higher,
        threshold=threshold,
        margin=margin,
        memory_metric=memory_metric,
    )


def summary(made: report.Report, out: Path) -> str:
    """Table and pick."""
    head = {
        "mark": "",
        "setting": "setting",
        "score": made.metric,
        "meets": "meets",
        "memory": "memory",
        "time": "train s",
        "speed": "tokens/s",
        "trainable": "trainable",
        "outcomes": "runs",
    }
    rows = [head, *made.table()]
    for row in rows[1:]:
        row["mark"] = {"pick": "→", "best": "★"}.get(row["mark"], "")
    widths = {key: max(len(row[key]) for row in rows) for key in head}
    left = {"mark", "setting", "outcomes"}
    lines = [
        "  ".join(f"{row[k]:<{w}}" if k in left else f"{row[k]:>{w}}" for k, w in widths.items()).rstrip()
        for row in rows
    ]
    bar = f"The bar is {made.bar_words}: {made.decision.bar:.4f}.  → pick  ★ best score"
    return "\n".join(["", *lines, "", bar, "", made.answer, made.caveat, "", f"Report: {out / 'report.html'}"])
