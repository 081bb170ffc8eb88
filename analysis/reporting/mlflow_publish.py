"""The answer in MLflow, on the study's run and its children, and the list of studies on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from analysis import formatting
from analysis.charts import style
from analysis.charts.names import shorten
from analysis.loading.mlflow_store import COLOUR, NOTE, StudyReader, StudyState
from analysis.reporting import mlflow_view
from analysis.reporting.report import Report
from analysis.reporting.writer import markdown_cell
from sweep.core import program
from sweep.core.errors import UserError, first_line
from sweep.core.formatting import table
from sweep.core.overrides import shell_override

log = logging.getLogger(__name__)


def publish_to_mlflow(store: StudyReader, made: Report, files: Sequence[Path]) -> None:
    """Description, tags and artifacts of the study's run; verdict and colour of its children; the saved view.

    The report's files are there already, so a failure here is logged, not raised.
    """
    parent = made.study.parent_id
    if parent is None:
        return
    try:
        tags = {NOTE: note(made), **_tags(made)}
        store.annotate(parent, name=title(made), tags=tags, files=files, folder="report")
        version = metadata.version("mlflow")
        store.tag_experiment(mlflow_view.tags(made.study.name, parent, made.metric, made.memory_metric, version))
        store.tag_runs(_run_tags(made))
    except UserError as error:
        log.warning("the report is written, but MLflow did not take all of it: %s", first_line(error))


def title(made: Report) -> str:
    """The study and its answer in a line. The page of a run has its description far down, its name on top."""
    so_far = ", so far" if made.so_far else ""
    pick = made.narrative.pick
    if pick is None:
        return f"{made.study.name}: nothing was learnt{so_far}"
    return f"{made.study.name}: use {shorten(str(pick.setting))}, {formatting.show_bytes(pick.memory)}{so_far}"


def note(made: Report) -> str:
    """The description, the answer first: the UI folds it after four lines."""
    table = ["| setting | score | chance to reach the threshold | peak memory |", "|---|---|---|---|"]
    for row in made.table()[:20]:
        mark = f" **({row['mark']})**" if row["mark"] else ""
        table.append(f"| {markdown_cell(row['setting'])}{mark} | {row['score']} | {row['verdict']} | {row['memory']} |")
    begun = f"*{made.so_far}* " if made.so_far else ""
    answer, confidence = markdown_cell(made.answer), markdown_cell(made.confidence)
    rest = "The whole report: Artifacts, report/report.html."
    further = [markdown_cell(made.next_step), ""] if made.next_step else []
    return "\n".join([f"{begun}**{answer}**", "", confidence, "", *further, rest, "", *table])


def _tags(made: Report) -> dict[str, str]:
    pick = made.narrative.pick
    return {
        "selected": made.decision.selected or "",
        "selected.verdict": "" if pick is None else str(pick.verdict),
        "selected.score": "" if pick is None else f"{pick.score:.6g}",
        f"selected.{made.memory_metric}": "" if pick is None else f"{pick.memory:.0f}",
        "selected.p_right_pick": "" if pick is None else f"{pick.p_right_pick:.3f}",
        "selected.p_reaches_bar": "" if pick is None else f"{pick.p_reaches_bar:.3f}",
        "best": made.decision.best,
        "threshold": made.threshold_words,
    }


def _run_tags(made: Report) -> dict[str, dict[str, str]]:
    """run id → the tags that differ from those it has."""
    looks = style.looks([str(variant) for variant in made.settings["variant"]])
    verdict = dict(zip(made.settings["setting"], made.settings["verdict"], strict=True))
    pick = made.decision.selected
    runs = made.runs.reindex(columns=[*dict.fromkeys([*made.runs.columns, "verdict", "selected", COLOUR])])
    changes: dict[str, dict[str, str]] = {}
    for row in runs.to_dict("records"):
        wanted = {
            "verdict": str(verdict.get(row["setting"]) or "none"),
            "selected": "yes" if row["setting"] == pick else "no",
            COLOUR: looks[str(row["variant"])][0],
        }
        different = {key: value for key, value in wanted.items() if row[key] != value}
        if different:
            changes[str(row["run_id"])] = different
    return changes


def listing(states: Sequence[StudyState], count: int) -> str:
    """The studies with their state, latest first."""
    if not states:
        return f"There is no study yet. A first one: {program.command('sweep')} -m experiment=quickstart"
    rows = [("study", "state", "begun", "runs", "selected")]
    for state in states:
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in state.outcomes.items()) or "none"
        runs = f"{sum(state.outcomes.values())} and more" if state.more else outcomes
        rows.append((state.name, state.state, f"{state.begun:%Y-%m-%d %H:%M}", runs, state.pick))
    more = [f"… and {count - len(states)} older ones"] if count > len(states) else []
    command = f"{program.command('analyze')} {shell_override('study', states[0].name)}"
    return "\n".join([table(rows, left=range(5)), *more, "", f"The answer of one: {command}"])
