"""One analysis from options to files, and the text that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.decision.aggregate import settings
from analysis.decision.pick_stability import stability
from analysis.decision.score_noise import estimate_noise
from analysis.decision.selection import decide
from analysis.loading import comparability, csv_source, per_example
from analysis.loading.study import Study
from analysis.reporting import writer
from analysis.reporting.narrative import few
from analysis.reporting.report import Report
from sweep.core import redaction
from sweep.core.errors import UserError, alternatives
from sweep.core.record import is_memory

if TYPE_CHECKING:
    from analysis.loading.mlflow_store import StudyReader

_STEPS = 4  # of what would settle it, on the terminal
DIRECTIONS = ("maximize", "minimize")
MEASURED = ("train_seconds", "energy_joules", "tokens_per_second", "trainable_params")


def answer(options: Mapping[str, Any]) -> str:
    """Write what the options ask for, and return its summary for the terminal: a study's report, that of a CSV, two
    studies side by side, or without any of them the list of studies.

    Raises:
        UserError: where there is no such study, nothing to decide on, or runs that do not compare.
    """
    if options["source"] is not None:
        return _of_file(options)
    from analysis.loading.mlflow_store import StudyReader
    from analysis.reporting import mlflow_publish  # imports MLflow, which a CSV can do without

    store = StudyReader(str(options["tracking"]["uri"]), str(options["tracking"]["experiment"]))
    if options["compare"] is not None:
        return _two(store, options)
    if options["study"] is None:
        return mlflow_publish.listing(*store.states())
    study = store.study(str(options["study"]))
    out = folder(options, study.name)
    writer.require_own(out, study.name)
    made = of_study(study, options)
    files = writer.write(made, out, suffixes(options))
    mlflow_publish.present(store, made, files)
    return summary(made, out)


def _of_file(options: Mapping[str, Any]) -> str:
    path = Path(str(options["source"]))
    study = csv_source.read(path, str(options["memory_metric"]), options["direction"])
    out = folder(options, study.name)
    writer.require_own(out, study.name)
    made = of_study(study, options)
    writer.write(made, out, suffixes(options))
    return summary(made, out)


def _two(store: StudyReader, options: Mapping[str, Any]) -> str:
    from analysis.reporting import study_comparison

    first, second = (store.study(str(name)) for name in options["compare"])
    allowed = [
        [key for key in options["allow_different"] if key in comparability.differing(s.runs)] for s in (first, second)
    ]
    if not all(key in allowed[0] + allowed[1] for key in options["allow_different"]):
        allowed[0] = options["allow_different"]  # refused there, with what there is
    made = study_comparison.StudyComparison(
        of_study(first, {**options, "allow_different": allowed[0]}),
        of_study(second, {**options, "allow_different": allowed[1]}),
    )
    out = study_comparison.default_folder(options, first.name, second.name)
    study_comparison.write_comparison(made, out, suffixes(options))
    return study_comparison.summary(made, out)


def of_study(study: Study, options: Mapping[str, Any]) -> Report:
    """The report's content, by the options of conf/analysis.yaml."""
    made = build(
        study,
        float(options["threshold"]),
        options["margin"],
        str(options["memory_metric"]),
        allow_different=tuple(options["allow_different"]),
        direction=options["direction"],
        cluster=options["cluster"],
        command=_command(options),
    )
    return replace(made, charts=tuple(options.get("charts", ())))


def build(
    study: Study,
    threshold: float,
    margin: float | None,
    memory_metric: str,
    *,
    allow_different: Sequence[str] = (),
    direction: str | None = None,
    cluster: str | None = None,
    command: str = "",
) -> Report:
    """The report's content. `cluster` is the per-example column that tells which examples belong together.

    Raises:
        UserError: where runs do not compare, nothing can be decided, or the direction of the score is not known.
    """
    allowed = comparability.require_comparable(study.runs, allow_different)
    runs = study.runs
    if study.parent_id is not None or memory_metric not in runs:
        _require_memory(runs, memory_metric)
    higher = _higher_is_better(runs, direction)
    metric = str(runs["metric"].iloc[0])
    study = study._replace(runs=runs.reindex(columns=[*runs.columns, *(c for c in MEASURED if c not in runs)]))
    scored = study.scored()
    found = per_example.read(
        dict(zip(scored["run_id"], scored["score"].astype(float), strict=True)),
        metric,
        _first(scored, f"corpus.{metric}"),
        study.find_examples,
        cluster,
    )
    table = settings(study.runs, memory_metric)
    evidence = estimate_noise(scored, found, higher) if len(scored) else None
    decision = decide(table, threshold=threshold, margin=margin, higher_is_better=higher, evidence=evidence)
    assert evidence is not None  # else nothing could be decided
    steadiness = stability(scored, decision.settings, decision.pick, decision.rule, found)
    return Report(
        study=study,
        decision=decision,
        evidence=evidence,
        stability=steadiness,
        metric=metric,
        memory_metric=memory_metric,
        allowed=allowed,
        command=command,
    )


def _require_memory(runs: pd.DataFrame, memory_metric: str) -> None:
    known = [column for column in runs.select_dtypes("number").columns if is_memory(column)]
    if memory_metric not in known and (runs["outcome"] == "ok").any():
        raise UserError(
            f"memory_metric = {memory_metric} is no memory that was measured; {alternatives(memory_metric, known)}"
        )


def _higher_is_better(runs: pd.DataFrame, direction: str | None) -> bool:
    told = set(runs["direction"].dropna()) if "direction" in runs else set()
    if direction is None and (len(told) != 1 or not told <= set(DIRECTIONS)):
        metric = runs["metric"].iloc[0] if "metric" in runs else "the score"
        raise UserError(
            f"whether higher or lower is better is not known for {metric} (the runs say: "
            f"{', '.join(sorted(map(str, told))) or 'nothing'}); say so: direction=maximize or direction=minimize"
        )
    return (direction or told.pop()) == "maximize"


def _first(runs: pd.DataFrame, column: str) -> str | None:
    known = runs[column].dropna() if column in runs else pd.Series(dtype=object)
    return str(known.iloc[0]) if len(known) else None


def folder(options: Mapping[str, Any], name: str) -> Path:
    """Where the report goes: `out`, or reports/<name>."""
    return Path("reports", name) if options["out"] == "auto" else Path(str(options["out"]))


def suffixes(options: Mapping[str, Any]) -> list[str]:
    """Of the charts' files."""
    return [".svg", ".png", *([".pdf"] if options["pdf"] else [])]


def _command(options: Mapping[str, Any]) -> str:
    """How to write this report again."""
    given = [f"{key}={options[key]}" for key in ("study", "source") if options[key] is not None]
    defaults = {
        "threshold": 0.99,
        "margin": None,
        "memory_metric": "max_memory_allocated",
        "direction": None,
        "cluster": None,
    }
    given += [f"{key}={options[key]}" for key, value in defaults.items() if options[key] != value]
    if options["allow_different"]:
        given.append(f"allow_different=[{','.join(options['allow_different'])}]")
    if options.get("charts"):
        given.append(f"charts=[{','.join(options['charts'])}]")
    return redaction.text("python -m analysis " + " ".join(f"'{text}'" if " " in text else text for text in given))


def summary(made: Report, out: Path) -> str:
    """Table and pick."""
    head = {key: words for key, words in made.columns.items() if key != "energy"}
    short = {"meets": "at bar", "memory": "memory", "time": "train s", "trainable": "trainable"}
    rows = [{"mark": "", **head, **{key: short[key] for key in short if key in head}}]
    marks = {"pick": "→", "best": "★", "pick · best": "→★", "": ""}
    rows += [{**row, "mark": marks[row["mark"]]} for row in made.table()]
    keys = ["mark", *head]
    widths = {key: max(len(row[key]) for row in rows) for key in keys}
    left = {"mark", "setting", "outcomes", "verdict"}
    lines = [
        "  ".join(f"{row[k]:<{w}}" if k in left else f"{row[k]:>{w}}" for k, w in widths.items()).rstrip()
        for row in rows
    ]
    bar = f"The bar is {made.bar_words}: {made.decision.bar:.4f}.  → pick  ★ best score"
    steps: dict[str, list[str]] = {}
    for row in made.words.open_questions():
        steps.setdefault(row.next_step, []).append(row.setting)
    asked = [f"  {few(names)}: {step}" for step, names in list(steps.items())[:_STEPS]]
    settled = ["", "To settle what could not be told:", *asked] if asked else []
    return "\n".join(
        ["", *lines, "", bar, "", *filter(None, [made.so_far]), made.answer, made.confidence, *settled, *_told(made),
         "", f"Report: {out / 'report.html'}"]
    )  # fmt: skip


def _told(made: Report) -> list[str]:
    return ["", *(f"Note: {note}" for note in made.notes)] if made.notes else []
