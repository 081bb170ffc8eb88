"""A finished run as the tracking store keeps it: record, config, what it trained, and its results by example."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sweep.config import RunConfig, Tracking, parse
from sweep.errors import UserError, alternatives, first_line
from sweep.job import EXAMPLES_FILE, WEIGHTS_FOLDER
from sweep.preflight import sqlite_path
from sweep.record import Outcome, Record
from sweep.tracking import Store, to_record


@dataclass(frozen=True, kw_only=True)
class Kept:
    """`weights` is a folder; `rows` are the run's validation results, one per example. `why` says how it was chosen."""

    run_id: str
    record: Record
    config: RunConfig
    weights: Path
    rows: list[dict[str, Any]]
    why: str

    @property
    def base_revision(self) -> str | None:
        """The base's digest or commit as the run saw it; None where its record does not tell."""
        return _revision(self.record)


def open_store(tracking: Tracking) -> Store:
    """Raises UserError where there is no such store: none is created here."""
    file = sqlite_path(tracking.uri)
    if file is not None and not file.exists():
        raise UserError(
            f"there is no tracking store {file}. Run a study first (python -m sweep -m), go to the folder it was run "
            "in, or name the store: tracking.uri=sqlite:////folder/mlflow.db"
        )
    return Store(tracking.uri, tracking.experiment, tracking.artifacts)


def find(store: Store, study: str | None, run: str | None, scratch: Path) -> Kept:
    """The run that is asked for, its files fetched into `scratch`.

    `run` is an id, or within `study` a run's name or a setting, of which the best replicate is taken. With `study`
    alone it is the setting that the analysis picked.

    Raises:
        UserError: where there is no such run, it was not ok, or its weights were not kept.
    """
    if study is None:
        run_id, record = _by_id(store, str(run))
        why = "by its id"
    else:
        run_id, record, why = _in_study(store, study, run)
    if record.outcome is not Outcome.OK:
        raise UserError(f"run {record.name} ended as {record.outcome} ({first_line(record.reason)}): nothing to export")
    if "weights/kept_bytes" not in record.measurements:
        size = record.measurements.get("weights/trained_bytes")
        needed = f"tracking.keep_weights_bytes={size:.0f}" if size else "tracking.keep_weights_bytes"
        raise UserError(
            f"what run {record.name} trained was not kept with it, for its size. Delete the run in MLflow and give the "
            f"study's command again with {needed} or more: it repeats that run alone"
        )
    fetched = {name: store.fetch(run_id, name, scratch) for name in ("config.yaml", WEIGHTS_FOLDER, EXAMPLES_FILE)}
    return Kept(
        run_id=run_id,
        record=record,
        config=parse(_pinned(OmegaConf.to_container(OmegaConf.load(fetched["config.yaml"])), record)),
        weights=fetched[WEIGHTS_FOLDER],
        rows=_rows(fetched[EXAMPLES_FILE]),
        why=why,
    )


def _pinned(plain: Any, record: Record) -> Mapping[str, Any]:
    """The config with the base at the revision that the run loaded."""
    revision = _revision(record)
    if revision is None:
        return plain
    model = parse(plain).model.pinned(plain["model"], {"model_revision": revision})
    return {**plain, "model": model}


def _revision(record: Record) -> str | None:
    return json.loads(record.facts.get("conditions.values", "{}")).get("model_revision")


def _by_id(store: Store, run_id: str) -> tuple[str, Record]:
    try:
        found = store.run(run_id)
    except UserError as error:
        raise UserError(f"run = {run_id} is no run of this store ({first_line(error)}); name its study too") from error
    if found.data.tags.get("kind") != "run":
        raise UserError(f"run = {run_id} is no single run; a study is asked for by study=…")
    return found.info.run_id, to_record(found)


def _in_study(store: Store, study: str, run: str | None) -> tuple[str, Record, str]:
    parent = store.find_study(study)
    if parent is None:
        raise UserError(f"there is no study {study} in this store; check its name, and tracking.uri")
    records = store.records(parent.info.run_id)
    wanted = run
    if wanted is None:
        wanted = parent.data.tags.get("pick")
        if wanted not in {record.setting for _, record in records}:
            raise UserError(
                f"study {study} has no pick yet: python -m analysis study={study} makes it, or name a run or setting: "
                f"run=…; {alternatives('', sorted({record.setting for _, record in records}))}"
            )
    for run_id, record in records:
        if run is not None and run in (run_id, record.name):
            return run_id, record, "by its name"
    replicates = [(run_id, record) for run_id, record in records if record.setting == wanted]
    if not replicates:
        known = list(dict.fromkeys(record.setting for _, record in records))
        raise UserError(f"run = {run} is no run and no setting of study {study}; {alternatives(str(run), known)}")
    run_id, record = best(replicates)
    by = "the study's pick" if run is None else "the setting asked for"
    among = f"the best of its {len(replicates)} replicates" if len(replicates) > 1 else "its only replicate"
    return run_id, record, f"{by}, {among}"


def best(replicates: Sequence[tuple[str, Record]]) -> tuple[str, Record]:
    """The replicate with the best score, of equal ones the lowest seed; where none was ok, the first."""
    ok = [item for item in replicates if item[1].outcome is Outcome.OK]
    if not ok:
        return replicates[0]
    sign = -1 if ok[0][1].facts.get("direction") == "minimize" else 1
    return max(ok, key=lambda item: (sign * item[1].measurements["score"], -item[1].seed))


def _rows(file: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return parquet.read_table(file).to_pylist()
