"""Rebuild a run's model, write it for others to load, and score the written model."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sweep.config.schema import Study
from sweep.core.errors import UserError
from sweep.core.formatting import gib
from sweep.core.reporter import silent
from sweep.deployment import model_card
from sweep.deployment.evaluation_setup import EvaluationSetup
from sweep.deployment.merge_check import Logits
from sweep.deployment.score_check import difference
from sweep.deployment.stored_run import MANIFEST, Given, StoredRun, find
from sweep.models.pretrained import Pretrained
from sweep.tracking.mlflow_reader import MlflowReader
from sweep.tracking.options import Tracking

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as safetensors and as PyTorch call them


def export(options: Mapping[str, Any], tracking: Tracking) -> model_card.ExportedModel:
    """Write the run's adapter or model to a folder, and score it again. `options` are those of `conf/export.yaml`.

    Raises:
        UserError: the run has nothing to export, its base has changed, or the exported model is worse than the run by
            more than noise (unless `allow_drop` is set). Then the folder does not change.
    """
    store = MlflowReader(tracking.uri, tracking.experiment)
    with tempfile.TemporaryDirectory(prefix="paretune-export-") as scratch:
        base, revision, packages = options["base"], options["base_revision"], tuple(options["packages"])
        given = Given(base, revision, packages, options["trust_remote_code"])
        run = find(store, options["study"], options["run"], Path(scratch), given)
        _require_same_base(run)
        out = Path(str(options["out"] or default_folder(run, options["merge"], str(options["dtype"]))))
        _require_replaceable(out, run.run_id, adapter=run.config.variant.is_adapter and not options["merge"])
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            exported = _write(run, building, out, options)
            if exported.difference.beyond_noise and not options["allow_drop"]:
                raise UserError(
                    f"the exported model is worse than its run: {exported.difference}. Nothing was written. Export the "
                    "adapter (merge=false), raise the precision (dtype=fp32), or accept the drop: allow_drop=true"
                )
            (building / "README.md").write_text(model_card.text(exported))
            (building / MANIFEST).write_text(json.dumps(_manifest(exported), indent=1))
            if out.exists():
                shutil.rmtree(out)
            building.chmod(0o755)  # a temporary folder is private
            building.rename(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        store.annotate(
            run.run_id,
            measurements={
                "export/score": exported.difference.after,
                "export/score_drop": exported.difference.drop,
                **{f"test/{name}": score for name, score in exported.test.items()},
            },
            files=[out / "README.md", out / MANIFEST],
            folder="export",
        )
    if options["register"] is not None:
        from sweep.deployment.model_registry import register

        return exported._replace(registered=register(store, exported, str(options["register"])))
    return exported


def _require_same_base(run: StoredRun) -> None:
    found = run.config.model.prepare(silent).get("model_revision")
    if run.base_revision is not None and found != run.base_revision:
        raise UserError(
            f"the base model has changed: this run adapted {run.base_revision}, and now it is {found}. "
            "Trained weights fit their own base only: restore it, give its folder (base=<folder>), or train again"
        )


def _require_replaceable(out: Path, run_id: str, *, adapter: bool) -> None:
    """Raises UserError where `out` has something else than an earlier export of the same run in the same form."""
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        there = json.loads((out / MANIFEST).read_text())
    except (OSError, ValueError):
        raise UserError(f"out = {out} has other files than an export; choose another folder") from None
    if (there.get("run_id"), there.get("adapter")) != (run_id, adapter):
        kind = "the adapter" if there.get("adapter") else "the model"
        of = f"{there.get('setting')} with seed {there.get('seed')} (run {there.get('run_id')})"
        raise UserError(
            f"out = {out} has {kind} of {of}, which this export would replace; choose another folder with out=…, or "
            "delete that one"
        )


def default_folder(run: StoredRun, merge: bool = False, dtype: str = "auto") -> Path:
    """Of each form of an export. The name has no "=", which Hydra would read as an option in a list of adapters.

    Raises:
        UserError: where the run's tag `study` is no name of a study, such as one that leads out of `exports/`.
    """
    for _, message in Study(name=run.record.study).faults():
        raise UserError(f"the tag study = {run.record.study} of run {run.run_id} {message}; name the folder: out=…")
    is_adapter = run.config.variant.is_adapter
    form = "-merged" if merge and is_adapter else ""
    form += f"-{dtype}" if dtype != "auto" and (merge or not is_adapter) else ""
    name = re.sub(r"[^\w.-]+", "-", f"{run.record.setting}-seed{run.record.seed}") + form
    return Path("exports", *(run.record.study or "runs").split("/"), name)


def _write(run: StoredRun, building: Path, out: Path, options: Mapping[str, Any]) -> model_card.ExportedModel:
    """Write into `building`, load the written model, and score it."""
    variant, source, setup = run.config.variant, run.config.model, EvaluationSetup.of(run.config)
    is_adapter = variant.is_adapter and not options["merge"]
    if is_adapter:
        shutil.copytree(run.weights, building, dirs_exist_ok=True)
        _name_base(building / "adapter_config.json", source.location()[0])
        model, dtype, note = variant.restore(setup.base(), building), "", ""
    else:
        dtype, note, logits = _write_whole(run, setup, building, str(options["dtype"]))
        written = Pretrained(path=str(building), attention=source.attention, trust_remote_code=source.trust_remote_code)
        model = setup.base(written, quantized=False)
        logits.require_equal(setup.logits(model), model.dtype.itemsize)
    task = setup.task
    if task.task_type == "CAUSAL_LM":
        # Generation needs it. Transformers 5 saves the arguments of the tokenizer's creation, and not later changes.
        setup.tokenizer.padding_side = setup.tokenizer.init_kwargs["padding_side"] = "left"
    setup.tokenizer.save_pretrained(building)
    before = (run.record.measurements["score"], run.rows)
    evaluation = setup.score(model)
    _require_same_examples(run.rows, evaluation.rows)
    after = (evaluation.scores[task.score], evaluation.rows)
    return model_card.ExportedModel(
        run=run,
        folder=out,
        is_adapter=is_adapter,
        dtype=dtype or _weights_dtype(building),
        note=" ".join(filter(None, [note, task.usage()])),
        difference=difference(task.score, task.metrics[task.score], before, after),
        exported_bytes=sum(file.stat().st_size for file in building.iterdir()),
        loading={**setup.arguments, **({"quantization_config": setup.quantization} if is_adapter else {})},
        test=setup.test_scores(model),
    )


def _name_base(file: Path, base: str) -> None:
    """Write the base's current place into the adapter's config, for `AutoPeftModel…`: it may have moved."""
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": base}, indent=2))


def _require_same_examples(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
    if [row.get("reference") for row in before] != [row.get("reference") for row in after]:
        raise UserError(
            f"the validation examples differ from those of the run ({len(before)} then, {len(after)} now): the data "
            "has changed, and the scores cannot be compared. Restore the data to export"
        )


def _write_whole(run: StoredRun, setup: EvaluationSetup, building: Path, wanted: str) -> tuple[str, str, Logits]:
    """Write the whole model, with the trained weights merged. Returns its precision, a note about the merge, and logits
    from before the merge.

    A merge into 4-bit or 8-bit weights would round the trained change. So a quantised variant is merged into a new load
    of the base in 16 bits: the checkpoint's precision if it has 16 bits, else bf16.
    """
    variant, model = run.config.variant, run.config.model
    base = setup.base(model if wanted == "auto" else replace(model, dtype=wanted), quantized=False)
    if variant.quantized and wanted == "auto" and base.dtype.itemsize > 2:
        base = base.to(torch.bfloat16)
    dtype, names, untrained = base.dtype, base.state_dict().keys(), setup.logits(base)
    trained = variant.restore(base, run.weights)
    logits = Logits(untrained, setup.logits(trained))
    whole = variant.merge(trained).to(dtype)
    lost = sorted(names - whole.state_dict().keys())
    if lost:
        raise UserError(
            f"merging variant {variant.name} into {type(whole).__name__} would lose {', '.join(lost)}; export the "
            "adapter: merge=false"
        )
    whole.config.use_cache = True  # training switches it off
    whole.save_pretrained(building)
    name, merged = str(dtype).removeprefix("torch."), "The adapter was merged into"
    if variant.quantized:
        target = f"a {name} load of the base, and not into the quantised weights of its training"
        return name, f"{merged} {target}; they are not bit-identical, so it was scored again.", logits
    return name, f"{merged} the base in {name}." if variant.is_adapter else "", logits


def _weights_dtype(folder: Path) -> str:
    """The precisions of the weights in `folder`."""
    from safetensors import safe_open

    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            found |= {str(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118
    return ", ".join(_DTYPES.get(name, name) for name in sorted(found))


def _manifest(exported: model_card.ExportedModel) -> dict[str, Any]:
    run = exported.run
    return {
        "run_id": run.run_id,
        "study": run.record.study,
        "setting": run.record.setting,
        "seed": run.record.seed,
        "base": run.config.model.location()[0],
        "base_revision": run.base_revision,
        "adapter": exported.is_adapter,
        "dtype": exported.dtype,
        **exported.difference._asdict(),
    }


def summary(exported: model_card.ExportedModel) -> str:
    """The text that the command prints after an export."""
    record, kind = exported.run.record, "adapter" if exported.is_adapter else "model"
    what = f"{kind}, {gib(exported.exported_bytes)}, {exported.dtype}"
    lines = [
        f"{record.name} ({exported.run.why}) → {exported.folder}: {what}",
        f"{record.facts.get('metric', 'score')}: {exported.difference}",
    ]
    if exported.test:
        shown = ", ".join(f"{name} {score:.4g}" for name, score in exported.test.items())
        lines.append(f"on the test split, which did not influence any choice: {shown}")
    if exported.note:
        lines.append(exported.note)
    if exported.registered:
        lines.append(f"registered as {exported.registered}")
    return "\n".join(lines)
