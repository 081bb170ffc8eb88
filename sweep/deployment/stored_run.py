"""A finished run in the tracking store: record, config, trained weights, and results by example."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from sweep.config.schema import RunConfig, parse
from sweep.core import program
from sweep.core.artifacts import EXAMPLES_FILE, WEIGHTS_FOLDER
from sweep.core.construction import targets
from sweep.core.errors import ConfigError, UserError, alternatives, first_line
from sweep.core.overrides import shell_override, text_value
from sweep.core.record import Outcome, Record
from sweep.core.trusted_code import untrusted_package
from sweep.tracking.mlflow_reader import MlflowReader
from sweep.tracking.record_tags import fault_of, to_record

MANIFEST = "export.json"  # in an exported folder: its run and its base


class Given(NamedTuple):
    """What the command says about a run's base, and about code. Others may write the store, so the run's config alone
    decides on no code: `packages` are those whose classes it may name, besides ours, and `remote_code` states whether
    code of the checkpoint's author may run. `base` is a folder or Hub id, `revision` a commit on the Hub."""

    base: str | None = None
    revision: str | None = None
    packages: tuple[str, ...] = ()
    remote_code: bool = False


_NOTHING = Given()


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """`weights` is a folder; `rows` are the validation results by example; `why` states how the run was selected."""

    run_id: str
    record: Record
    config: RunConfig
    weights: Path
    rows: list[dict[str, Any]]
    why: str

    @property
    def base_revision(self) -> str | None:
        """The digest or commit of the run's base; None if its record does not have it."""
        return _revision(self.record)


def find(store: MlflowReader, study: str | None, run: str | None, scratch: Path, given: Given = _NOTHING) -> StoredRun:
    """Find a run and fetch its files into `scratch`, or raise UserError.

    Of several replicates, the one with the best validation score is selected. Its score is too high for the setting, so
    `why` has the mean of the replicates too.

    Args:
        run: the id of a run; in a study also a run's name, a setting, or a variant with one setting. None for the
            setting that the analysis has selected.
        given: what the command says about the base and about code.
    """
    if study is None:
        run_id, record = _by_id(store, str(run))
        why = "by its id"
    else:
        run_id, record, why = _in_study(store, study, run)
    if record.outcome is not Outcome.OK:
        raise UserError(f"run {record.name} ended as {record.outcome} ({first_line(record.reason)}): nothing to export")
    if "weights/saved_bytes" not in record.measurements:
        size = record.measurements.get("weights/trained_bytes")
        needed = f"tracking.max_saved_weights_bytes={size:.0f}" if size else "tracking.max_saved_weights_bytes"
        raise UserError(
            f"the trained weights of run {record.name} were too large to be saved. Delete the run in MLflow, and "
            f"repeat the study's command with {needed} or more: it repeats this run only"
        )
    from pyarrow import parquet

    fetched = {name: store.fetch(run_id, name, scratch) for name in ("config.yaml", WEIGHTS_FOLDER, EXAMPLES_FILE)}
    return StoredRun(
        run_id=run_id,
        record=record,
        config=_config(OmegaConf.to_container(OmegaConf.load(fetched["config.yaml"])), record, given),
        weights=fetched[WEIGHTS_FOLDER],
        rows=parquet.read_table(fetched[EXAMPLES_FILE]).to_pylist(),
        why=why,
    )


def _config(plain: Any, record: Record, given: Given) -> RunConfig:
    """The run's config, with the revision of the base that the run loaded, or the given one."""
    _require_trusted(plain, record, given)
    revision, model = _revision(record), plain["model"]
    folder = model.get("path") if revision is not None and revision.startswith("sha256:") else None
    if given.base is not None:
        model = {**model, "path": given.base}
    elif folder is not None and not Path(folder).expanduser().is_dir():
        raise UserError(
            f"the base model was in the folder {folder}, which does not exist here; give its folder: base=<folder>"
        )
    try:
        config = parse({**plain, "model": model})
        if revision is None and given.revision is None:
            return config
        pinned = {"model_revision": given.revision or revision}
        return parse({**plain, "model": config.model.pinned(model, pinned)})
    except ConfigError as error:
        raise UserError(
            f"run {record.name} cannot be set up again here. Relative paths count from the folder that its study was "
            f"started in: go there, and restore the missing files.\n{error}"
        ) from error


def _require_trusted(plain: Any, record: Record, given: Given) -> None:
    """Refuse a config that names code which the command does not allow, before anything is imported."""
    if not isinstance(plain, Mapping) or not isinstance(plain.get("model"), Mapping):
        raise UserError(f"the config.yaml of run {record.name} has no group model: the file is damaged")
    foreign = {path: untrusted_package(path, given.packages) for _, path in targets(plain)}
    unknown = sorted({package for package in foreign.values() if package is not None})
    if unknown:
        named = ", ".join(str(path) for path, package in foreign.items() if package is not None)
        raise UserError(
            f"the config of run {record.name} names classes of other packages than this program's: {named}. Whoever "
            f"may write the store can write this. If you trust them: {shell_override('packages', unknown)}"
        )
    if plain["model"].get("trust_remote_code", False) is not False and not given.remote_code:
        raise UserError(
            f"run {record.name} was trained with code of its checkpoint's author (model.trust_remote_code = true). An "
            "export runs such code only if you name it: trust_remote_code=true base=<Hub id> base_revision=<commit>, "
            "or trust_remote_code=true base=<folder>"
        )


def _revision(record: Record) -> str | None:
    return json.loads(record.facts.get("conditions", "{}")).get("model_revision")


def _by_id(store: MlflowReader, run_id: str) -> tuple[str, Record]:
    try:
        found = store.run(run_id)
    except UserError as error:
        raise UserError(f"run = {run_id} is not in this store ({first_line(error)}); name its study too") from error
    if found.data.tags.get("kind") != "run":
        raise UserError(f"run = {run_id} is a study; use study=…")
    if fault := fault_of(found):
        raise UserError(fault)
    return found.info.run_id, to_record(found)


def _in_study(store: MlflowReader, study: str, run: str | None) -> tuple[str, Record, str]:
    parent = store.find_study(study)
    if parent is None:
        raise UserError(f"there is no study {study} in this store; check its name, and tracking.uri")
    records = store.records(parent.info.run_id)
    wanted, by = run, "as requested"
    if wanted is None:
        wanted, by = parent.data.tags.get("selected"), "selected by the study's report"
        if wanted not in {record.setting for _, record in records}:
            if wanted == "":
                raise UserError(
                    f"the report of study {study} recommends nothing, since nothing was learnt; name a run: run=…"
                )
            known = alternatives("", sorted({_typed(record.setting) for _, record in records}))
            raise UserError(
                f"study {study} has no selected setting yet: run {program.command('analyze')} "
                f"{shell_override('study', study)}, or name a run, a setting or a variant: run=…; {known}"
            )
    for run_id, record in records:
        if run in (run_id, record.name):
            return run_id, record, "by its name"
    replicates = _replicates(study, str(wanted), records)
    return *best(replicates), f"{by}, {_choice(replicates)}"


def _replicates(study: str, wanted: str, records: Sequence[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """The runs of a setting, or of a variant that has one setting only."""
    known = list(dict.fromkeys(record.setting for _, record in records))
    of_variant = list(dict.fromkeys(record.setting for _, record in records if record.variant == wanted))
    if wanted not in known and len(of_variant) == 1:
        wanted = of_variant[0]
    found = [(run_id, record) for run_id, record in records if record.setting == wanted]
    if not found:
        several = f"is a variant of several settings in study {study}"
        fault = several if of_variant else f"is not a run or a setting of study {study}"
        listed = alternatives(wanted, [_typed(name) for name in of_variant or known])
        raise UserError(f"run = {wanted} {fault}; {listed}")
    return found


def _typed(setting: str) -> str:
    """The option as a shell and Hydra accept it."""
    return shell_override("run", setting) if text_value(setting) != setting or "=" in setting else setting


def _choice(replicates: Sequence[tuple[str, Record]]) -> str:
    scores = [record.measurements["score"] for _, record in replicates if record.outcome is Outcome.OK]
    if len(scores) < 2:
        return "its only replicate" if len(replicates) == 1 else "its only ok replicate"
    mean = sum(scores) / len(scores)
    return f"of its {len(scores)} replicates the one that scored best on validation; their mean is {mean:.4f}"


def best(replicates: Sequence[tuple[str, Record]]) -> tuple[str, Record]:
    """The replicate with the best score, and of equal scores the lowest seed. If none was ok, the first."""
    ok = [item for item in replicates if item[1].outcome is Outcome.OK]
    if not ok:
        return replicates[0]
    sign = -1 if ok[0][1].facts.get("direction") == "minimize" else 1
    return max(ok, key=lambda item: (sign * item[1].measurements["score"], -item[1].seed))
