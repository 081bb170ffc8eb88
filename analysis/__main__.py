"""`python -m analysis study=NAME`: load ▸ comparable? ▸ decide ▸ charts ▸ report."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from sweep.cli import app
from sweep.core import preflight
from sweep.core.errors import Fault, UserError, alternatives
from sweep.core.paths import CONF


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="analysis")
def application(composed: DictConfig) -> None:
    from analysis.pipeline import answer

    try:
        print(answer(OmegaConf.to_container(composed, resolve=True)))
    except UserError as error:
        app.exit_with_error(error)


KNOWN = (
    "study", "source", "compare", "threshold", "margin", "memory_metric", "direction", "cluster", "price",
    "allow_different", "packages", "charts", "latex", "pdf", "out",
)  # fmt: skip


def validate(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """What is wrong with the options, before anything is read."""
    if multirun:
        yield Fault("-m", "", "has no meaning here: name two studies to compare=[a,b], or analyse one at a time")
    for key in composed:
        if key not in (*KNOWN, "tracking", "hydra"):
            yield Fault(str(key), "", f"unknown option; {alternatives(str(key), KNOWN)}")
    for key in KNOWN:
        if key not in composed:
            yield Fault(key, "", "is missing; leave it as it is instead of deleting it")
            return
    yield from _subject_faults(composed)
    yield from _rule_faults(composed)
    yield from _chart_faults(composed.charts)
    yield from _latex_faults(composed.latex)
    if not isinstance(composed.pdf, bool):
        yield Fault("pdf", str(composed.pdf), "must be true or false")
    if not isinstance(composed.out, str) or not composed.out.strip():
        yield Fault("out", str(composed.out), "must be a folder, or auto")
    else:
        yield from preflight.output_fault("out", "reports" if composed.out == "auto" else composed.out)
    if composed.source is None:
        yield from preflight.store_fault("tracking.uri", str(composed.tracking.uri))


def _subject_faults(composed: DictConfig) -> Iterator[Fault]:
    given = [key for key in ("study", "source", "compare") if composed[key] is not None]
    if len(given) > 1:
        yield Fault(" and ".join(given), "", "were given together; give one of them")
    for key in ("study", "source"):
        value = composed[key]
        if value is not None and (isinstance(value, DictConfig | ListConfig) or not str(value).strip()):
            yield Fault(key, str(value), "must be one name; for two studies, compare=[a,b]")
    if composed.source is not None and not Path(str(composed.source)).is_file():
        yield Fault("source", str(composed.source), "is not a file; name a CSV with setting, score, peak_memory_bytes")
    pair = composed.compare
    if pair is not None and (not isinstance(pair, ListConfig) or len(pair) != 2 or pair[0] == pair[1]):
        yield Fault("compare", str(pair), "must name two different studies: compare=[first,second]")


def _rule_faults(composed: DictConfig) -> Iterator[Fault]:
    threshold, margin = composed.threshold, composed.margin
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.01 <= threshold <= 1:
        yield Fault("threshold", str(threshold), "must be a number from 0.01 to 1: a share of the best score")
    if margin is not None and not _is_distance(margin):
        yield Fault("margin", str(margin), "must be null or a number of at least 0: a distance from the best score")
    if not _is_distance(composed.price):
        yield Fault("price", str(composed.price), "must be a number of at least 0: what a missed score weighs")
    if not isinstance(composed.memory_metric, str):
        yield Fault("memory_metric", str(composed.memory_metric), "must name a measurement: peak_memory_bytes")
    if composed.direction not in (None, "maximize", "minimize"):
        yield Fault("direction", str(composed.direction), "must be maximize or minimize")
    if composed.cluster is not None and not isinstance(composed.cluster, str):
        yield Fault(
            "cluster", str(composed.cluster), "must name a column of the per-example results: cluster=text_pair"
        )
    elif composed.cluster is not None and composed.source is not None:
        yield Fault("cluster", composed.cluster, "needs the per-example results of a study; a CSV of runs has none")
    allow = composed.allow_different
    if not isinstance(allow, ListConfig) or not all(isinstance(key, str) for key in allow):
        yield Fault("allow_different", str(allow), "must be a list of conditions: allow_different=[device]")
    packages = composed.packages
    if not isinstance(packages, ListConfig) or not all(isinstance(name, str) and name.strip() for name in packages):
        yield Fault("packages", str(packages), "must be a list of names: packages=[my_package]")


def _chart_faults(charts: object) -> Iterator[Fault]:
    if not isinstance(charts, ListConfig) or not all(isinstance(name, str) for name in charts):
        yield Fault("charts", str(charts), "must be a list of modules: charts=[my_package.my_chart]")
        return
    for name in charts:
        try:
            lacking = [part for part in ("data", "draw") if not hasattr(importlib.import_module(name), part)]
        except ImportError as error:
            yield Fault("charts", name, f"cannot be imported: {error}; set PYTHONPATH to its folder")
            continue
        if lacking:
            yield Fault("charts", name, f"has no function {' and no function '.join(lacking)}")


def _latex_faults(latex: object) -> Iterator[Fault]:
    columns = latex.get("columns") if isinstance(latex, DictConfig) else None
    if not isinstance(columns, ListConfig) or not all(isinstance(name, str) for name in columns):
        yield Fault("latex.columns", str(columns), "must be a list of columns: latex.columns=[setting,score,memory]")
    elif not isinstance(latex.get("label"), str | None):  # type: ignore[union-attr]
        yield Fault("latex.label", str(latex.get("label")), "must be text: latex.label=tab:ranks")  # type: ignore[union-attr]


def _is_distance(margin: object) -> bool:
    return isinstance(margin, int | float) and not isinstance(margin, bool) and 0 <= margin < float("inf")


def main() -> None:
    app.run_command(application, CONF, "analysis", validate)


if __name__ == "__main__":
    main()
