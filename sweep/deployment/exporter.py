"""Rebuild a run's model, write it for others to load, and score what was written."""

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

from sweep.core.errors import UserError
from sweep.core.formatting import gib
from sweep.core.reporter import silent
from sweep.deployment import model_card
from sweep.deployment.evaluation_setup import EvaluationSetup
from sweep.deployment.score_check import difference
from sweep.deployment.stored_run import MANIFEST, StoredRun, find
from sweep.models.pretrained import Pretrained
from sweep.tracking.mlflow_reader import MlflowReader
from sweep.tracking.options import Tracking

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as safetensors and as PyTorch call them


def export(options: Mapping[str, Any], tracking: Tracking) -> model_card.ExportedModel:
    """Write the run's adapter or model to a folder, scored again.

    Raises:
        UserError: where the run has nothing to export, its base has changed, or what was written scores worse than the
            run by more than noise (and `allow_drop` is not set). Nothing is left in the folder then.
    """
    store = MlflowReader(tracking.uri, tracking.experiment)
    with tempfile.TemporaryDirectory(prefix="paretune-export-") as scratch:
        kept = find(store, options["study"], options["run"], Path(scratch), options["base"])
        _require_same_base(kept)
        out = Path(str(options["out"] or default_folder(kept)))
        if out.exists() and not (out / MANIFEST).exists() and any(out.iterdir()):
            raise UserError(f"out = {out} holds something that is no export; choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            made = _write(kept, building, out, options)
            if made.difference.beyond_noise and not options["allow_drop"]:
                raise UserError(
                    f"the exported model is worse than its run: {made.difference}. Nothing was kept. Export the "
                    "adapter (merge=false), hold the weights more precisely (dtype=fp32), or take it: allow_drop=true"
                )
            (building / "README.md").write_text(model_card.text(made))
            (building / MANIFEST).write_text(json.dumps(_manifest(made), indent=1))
            if out.exists():
                shutil.rmtree(out)
            building.chmod(0o755)  # it was made as a temporary folder
            building.rename(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        store.annotate(
            kept.run_id,
            measurements={
                "export/score": made.difference.after,
                "export/score_drop": made.difference.drop,
                **{f"test/{name}": score for name, score in made.test.items()},
            },
            files=[out / "README.md", out / MANIFEST],
            folder="export",
        )
    if options["register"] is not None:
        from sweep.deployment.model_registry import register

        return made._replace(registered=register(store, made, str(options["register"])))
    return made


def _require_same_base(kept: StoredRun) -> None:
    found = kept.config.model.prepare(silent).get("model_revision")
    if kept.base_revision is not None and found != kept.base_revision:
        raise UserError(
            f"the base model is not the one that this run adapted: it was {kept.base_revision}, now it is {found}. "
            "What was trained fits that base alone: bring it back, say where it is (base=<folder>), or train again"
        )


def default_folder(kept: StoredRun) -> Path:
    """Without "=", which Hydra takes for another option's where several adapters are named."""
    name = re.sub(r"[^\w.-]+", "-", f"{kept.record.setting}-seed{kept.record.seed}")
    return Path("exports", *(kept.record.study or "runs").split("/"), name)


def _write(kept: StoredRun, building: Path, out: Path, options: Mapping[str, Any]) -> model_card.ExportedModel:
    """Write into `building`, load again what was written, and score that."""
    variant, source, ground = kept.config.variant, kept.config.model, EvaluationSetup.of(kept.config)
    is_adapter = variant.is_adapter and not options["merge"]
    if is_adapter:
        shutil.copytree(kept.weights, building, dirs_exist_ok=True)
        _name_base(building / "adapter_config.json", source.location()[0])
        model, dtype, note = variant.restore(ground.base(), building), "", ""
    else:
        dtype, note = _write_whole(kept, ground, building, str(options["dtype"]))
        written = Pretrained(path=str(building), attention=source.attention, trust_remote_code=source.trust_remote_code)
        model = ground.base(written, quantized=False)
    task = ground.task
    if task.task_type == "CAUSAL_LM":
        # As generation needs it; transformers 5 saves what a tokenizer was made with, and not what was set since.
        ground.tokenizer.padding_side = ground.tokenizer.init_kwargs["padding_side"] = "left"
    ground.tokenizer.save_pretrained(building)
    before = (kept.record.measurements["score"], kept.rows)
    evaluation = ground.score(model)
    _require_same_examples(kept.rows, evaluation.rows)
    after = (evaluation.scores[task.score], evaluation.rows)
    return model_card.ExportedModel(
        kept=kept,
        folder=out,
        is_adapter=is_adapter,
        dtype=dtype or _weights_dtype(building),
        note=note,
        difference=difference(task.score, task.metrics[task.score], before, after),
        exported_bytes=sum(file.stat().st_size for file in building.iterdir()),
        loading={**ground.arguments, **({"quantization_config": ground.quantization} if is_adapter else {})},
        test=ground.test_scores(model),
    )


def _name_base(file: Path, base: str) -> None:
    """Where the base is now, for `AutoPeftModel…`: it may have been moved since."""
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": base}, indent=2))


def _require_same_examples(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
    if [row.get("reference") for row in before] != [row.get("reference") for row in after]:
        raise UserError(
            f"the validation examples are not those that the run was scored on ({len(before)} then, {len(after)} now, "
            "or others): its data has changed, and the scores would not compare. Bring the data back to export"
        )


def _write_whole(kept: StoredRun, ground: EvaluationSetup, building: Path, asked: str) -> tuple[str, str]:
    """A plain model with what was trained inside. Returns its precision, and how it was merged.

    Merging into 4-bit or 8-bit weights would round what was learned to their grid, so a quantised variant is merged
    into a reload of the base in 16 bits: the checkpoint's own where it has 16, else bf16.
    """
    variant, model = kept.config.variant, kept.config.model
    base = ground.base(model if asked == "auto" else replace(model, dtype=asked), quantized=False)
    if variant.quantized and asked == "auto" and base.dtype.itemsize > 2:
        base = base.to(torch.bfloat16)
    dtype, names = base.dtype, base.state_dict().keys()
    whole = variant.merge(variant.restore(base, kept.weights)).to(dtype)
    lost = sorted(names - whole.state_dict().keys())
    if lost:
        raise UserError(
            f"merging variant {variant.name} into {type(whole).__name__} would lose {', '.join(lost)}; export the "
            "adapter: merge=false"
        )
    whole.config.use_cache = True  # off while training
    whole.save_pretrained(building)
    name = str(dtype).removeprefix("torch.")
    if variant.quantized:
        held = f"a {name} reload of the base, not into the quantised weights that it was trained on"
        return name, f"The adapter was merged into {held}; they are not the same to the bit, so it was scored again."
    return name, f"The adapter was merged into the base in {name}." if variant.is_adapter else ""


def _weights_dtype(folder: Path) -> str:
    """The precisions that the files in `folder` hold."""
    from safetensors import safe_open

    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            found |= {str(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118
    return ", ".join(_DTYPES.get(name, name) for name in sorted(found))


def _manifest(made: model_card.ExportedModel) -> dict[str, Any]:
    kept = made.kept
    return {
        "run_id": kept.run_id,
        "study": kept.record.study,
        "setting": kept.record.setting,
        "seed": kept.record.seed,
        "base": kept.config.model.location()[0],
        "base_revision": kept.base_revision,
        "adapter": made.is_adapter,
        "dtype": made.dtype,
        **made.difference._asdict(),
    }


def summary(made: model_card.ExportedModel) -> str:
    """What a person reads after an export."""
    record = made.kept.record
    kind = "adapter" if made.is_adapter else "model"
    lines = [
        f"{record.name} ({made.kept.why}) → {made.folder}: {kind}, {gib(made.exported_bytes)}, {made.dtype}",
        f"{record.facts.get('metric', 'score')}: {made.difference}",
    ]
    if made.test:
        shown = ", ".join(f"{name} {score:.4g}" for name, score in made.test.items())
        lines.append(f"on the test split, which nothing was chosen by: {shown}")
    if made.note:
        lines.append(made.note)
    if made.registered:
        lines.append(f"registered as {made.registered}")
    return "\n".join(lines)
