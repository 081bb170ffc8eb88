"""One analysis: from options to files and to the text on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.decision.aggregate import settings
from analysis.decision.chance import nothing_learnt
from analysis.decision.score_noise import estimate_noise
from analysis.decision.selection import PRICE, decide
from analysis.loading import comparability, csv_source, per_example
from analysis.loading.study import DIRECTIONS, Study
from analysis.reporting import writer
from analysis.reporting.report import Report
from sweep.core import program, redaction
from sweep.core.errors import UserError, alternatives
from sweep.core.formatting import table
from sweep.core.measurements import PEAK_MEMORY_BYTES
from sweep.core.overrides import shell_override
from sweep.core.record import is_memory

if TYPE_CHECKING:
    from analysis.loading.mlflow_store import StudyReader

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
    misplaced = store.misplaced(options["tracking"].get("artifacts"))
    study = study._replace(notes=(*study.notes, *filter(None, [misplaced])))
    out = folder(options, study.name)
    writer.require_own(out, study.name)
    made = of_study(study, options)
    files = writer.write(made, out, suffixes(options))
    mlflow_publish.publish_to_mlflow(store, made, [] if misplaced else files)
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
        price=float(options["price"]),
        packages=tuple(options.get("packages", ())),
        command=_command(options),
    )
    return replace(made, charts=tuple(options.get("charts", ())), latex=options.get("latex") or {})


def build(
    study: Study,
    threshold: float,
    margin: float | None,
    memory_metric: str,
    *,
    allow_different: Sequence[str] = (),
    direction: str | None = None,
    cluster: str | None = None,
    price: float = PRICE,
    packages: Sequence[str] = (),
    command: str = "",
) -> Report:
    """The report's content. `cluster` is the per-example column whose equal values mark examples that belong together;
    `price` weighs score against memory (`analysis.decision.selection.Decision`). `packages` are those whose corpus
    metrics the runs may name, besides ours.

    Raises:
        UserError: where runs do not compare, nothing can be decided, or the direction of the score is not known.
    """
    allowed = comparability.require_comparable(study.runs, allow_different)
    runs = study.runs
    if study.parent_id is not None or memory_metric not in runs:
        _require_memory(runs, memory_metric)
    higher = _higher_is_better(runs, direction)
    metric = _first(runs, "metric") or "score"
    study = study._replace(runs=runs.reindex(columns=[*runs.columns, *(c for c in MEASURED if c not in runs)]))
    scored = study.scored()
    found = per_example.read(
        dict(zip(scored["run_id"], scored["score"].astype(float), strict=True)),
        metric,
        _first(scored, f"corpus.{metric}"),
        study.find_examples,
        cluster,
        packages,
    )
    by_setting = settings(study.runs, memory_metric)
    noise = estimate_noise(scored, found, higher) if len(scored) else None
    idle = nothing_learnt(scored, metric, higher)
    try:
        decision = decide(
            by_setting, threshold=threshold, margin=margin, higher_is_better=higher, noise=noise, price=price
        )
    except UserError as error:
        raise UserError("\n".join(filter(None, [idle, str(error)]))) from error
    assert noise is not None  # else nothing could be decided
    if idle:
        decision = decision.without_selection()
    return Report(
        study=study,
        decision=decision,
        noise=noise,
        nothing_learnt=idle,
        metric=metric,
        memory_metric=memory_metric,
        allowed=allowed,
        command=command,
    )


def _require_memory(runs: pd.DataFrame, memory_metric: str) -> None:
    known = [column for column in runs.select_dtypes("number").columns if is_memory(column)]
    if memory_metric not in known and (runs["outcome"] == "ok").any():
        raise UserError(
            f"memory_metric = {memory_metric} is not a memory measurement of these runs; "
            f"{alternatives(memory_metric, known)}"
        )


def _higher_is_better(runs: pd.DataFrame, direction: str | None) -> bool:
    known = set(runs["direction"].dropna()) if "direction" in runs else set()
    if direction is None and (len(known) != 1 or not known <= set(DIRECTIONS)):
        metric = _first(runs, "metric") or "the score"
        raise UserError(
            f"the direction of {metric} is unknown (the runs have: "
            f"{', '.join(sorted(map(str, known))) or 'none'}); give direction=maximize or direction=minimize"
        )
    return (direction or known.pop()) == "maximize"


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
    """How to write this report again, for a shell."""
    defaults: dict[str, Any] = {
        "study": None,
        "source": None,
        "threshold": 0.99,
        "margin": None,
        "memory_metric": PEAK_MEMORY_BYTES,
        "direction": None,
        "cluster": None,
        "price": PRICE,
        "allow_different": [],
        "packages": [],
        "charts": [],
    }
    given = {key: options.get(key, value) for key, value in defaults.items()}
    changed = [shell_override(key, value) for key, value in given.items() if value != defaults[key]]
    return redaction.text(" ".join([program.command("analyze"), *changed]))


def summary(made: Report, out: Path) -> str:
    """The summary for the terminal: the table, the recommendation, and what to do next."""
    short = {"meets": "reaches", "verdict": "chance", "memory": "memory", "time": "train s", "trainable": "trainable"}
    head = {key: short.get(key, title) for key, title in made.columns.items() if key != "energy"}
    marks = {"selected": "→", "best": "★", "selected · best": "→★", "": ""}
    rows = [["", *head.values()], *([marks[row["mark"]], *(row[key] for key in head)] for row in made.table())]
    left = {0, *(number for number, key in enumerate(head, 1) if key in ("setting", "outcomes", "verdict"))}
    marked = "★ best score" if made.nothing_learnt else "→ selected  ★ best score"
    legend = f"The threshold is {made.threshold_words}: {made.decision.score_threshold:.4f}.  {marked}"
    answer = [*filter(None, [made.so_far, made.answer, made.confidence, made.next_step])]
    report = f"Report: {out / 'report.html'}"
    return "\n".join(["", table(rows, left), "", legend, "", *answer, *_notes(made), "", report])


def _notes(made: Report) -> list[str]:
    return ["", *(f"Note: {note}" for note in made.notes)] if made.notes else []
