"""Several adapters on one base that is loaded once: swapped, scored side by side, combined by weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow
from peft import PeftModel
from pyarrow import parquet

from sweep.core import formatting
from sweep.core.errors import UserError, first_line
from sweep.core.reporter import silent
from sweep.deployment.comparison_options import AdapterComparison
from sweep.deployment.evaluation_setup import EvaluationSetup
from sweep.deployment.stored_run import MANIFEST
from sweep.runtime import precision
from sweep.tasks import Evaluation
from sweep.training_run import device_type

BASE, COMBINED = "(base alone)", "(combined)"


class Scored(NamedTuple):
    """`bytes` is the adapter's size on the disk, `swap_seconds` what changing to it took; None where there is none."""

    name: str
    scores: dict[str, float]
    bytes: int | None
    swap_seconds: float | None


def compare(comparison: AdapterComparison) -> list[Scored]:
    """Scores of each adapter on the validation examples, of the base alone, and of the combination that is asked for.

    Raises:
        UserError: where adapters do not fit the base, or one another.
    """
    compute = precision.resolve(comparison.precision, device_type())
    quantization = comparison.variant.quantization(precision.dtype_of(compute), comparison.task.task_type)
    _require_their_base(comparison.adapters, comparison.model.prepare(silent).get("model_revision", ""))
    task, model = comparison.task, comparison.model
    ground = EvaluationSetup.at(task, model, quantization, compute, comparison.max_length, comparison.batch_size)
    base = comparison.variant.prepare(ground.base(), False)
    shown = shown_names(comparison.adapters)
    # PEFT finds an adapter's weights by its name's place in theirs: one called "0" would take layer 0's away.
    names = [f"adapter_{index}" for index in range(len(shown))]
    held = _load(base, dict(zip(names, comparison.adapters, strict=True))) if names else base
    out = Path(comparison.out) if comparison.out else None
    results: list[Scored] = []

    def keep(name: str, evaluation: Evaluation, size: int | None, swap: float | None) -> None:
        results.append(Scored(name, evaluation.scores, size, swap))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(evaluation.rows), out / f"{name.strip('()')}.parquet")

    if not names:
        keep(BASE, ground.score(base), None, None)
    elif not any(config.modules_to_save for config in held.peft_config.values() if hasattr(config, "modules_to_save")):
        with held.disable_adapter():  # a new head means nothing without its training
            keep(BASE, ground.score(held), None, None)
    for name, show, folder in zip(names, shown, comparison.adapters, strict=True):
        started = time.perf_counter()
        held.set_adapter(name)
        swap = time.perf_counter() - started
        keep(show, ground.score(held), sum(file.stat().st_size for file in Path(folder).glob("adapter_*")), swap)
    if comparison.weights is not None:
        _combine(held, names, comparison)
        keep(COMBINED, ground.score(held), None, None)
        if out is not None:
            held.save_pretrained(str(out), selected_adapters=["combined"], save_embedding_layers=False)
            (out / "README.md").unlink(missing_ok=True)  # a form that nobody has filled in
    if out is not None:
        (out / "evaluation.json").write_text(json.dumps([result._asdict() for result in results], indent=1))
    return results


def shown_names(folders: list[str]) -> list[str]:
    """The folders' own names, with as much of their parents' as keeps them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    names = ["-".join(part[-depth:]) for part in parts]
    if len(set(names)) < len(names):
        raise UserError(f"adapters: {', '.join(folders)} names a folder twice")
    return names


def _require_their_base(folders: list[str], revision: str) -> None:
    """Where an export tells which base it stands on: PEFT would load it onto any of the same shape."""
    for folder in folders:
        manifest = Path(folder, MANIFEST)
        wanted = json.loads(manifest.read_text()).get("base_revision") if manifest.is_file() else None
        alike = wanted is not None and wanted.startswith("sha256:") == revision.startswith("sha256:")
        if alike and wanted != revision:
            raise UserError(
                f"adapter {folder} stands on another base: it was trained on {wanted}, and this one is {revision}. "
                "What was trained fits that base alone"
            )


def _load(base: object, folders: dict[str, str]) -> PeftModel:
    (first, folder), *others = folders.items()
    try:
        held = PeftModel.from_pretrained(base, folder, adapter_name=first)
        for name, folder in others:
            held.load_adapter(folder, adapter_name=name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"adapter {folder} cannot be loaded beside the others: {first_line(error)}\n"
            "Adapters of one command share the base and the family (LoRA with LoRA)."
        ) from error
    return held.eval()


def _combine(held: PeftModel, names: list[str], comparison: AdapterComparison) -> None:
    """The weighted sum of what LoRA adapters add: W + Σ wᵢ·ΔWᵢ exactly for "cat" (ranks add up) and for "svd" of full
    rank; "linear" weights the factors A and B instead, by PEFT's rule, and needs equal ranks."""
    configs = [held.peft_config[name] for name in names]
    if any(not hasattr(config, "lora_alpha") or config.use_dora or config.modules_to_save for config in configs):
        raise UserError(
            "weights: only LoRA adapters without a magnitude (DoRA) and without a head of their own can be added up"
        )
    extra = {"density": 0.5} if comparison.combination_type.startswith(("ties", "dare", "magnitude")) else {}
    try:
        held.add_weighted_adapter(names, comparison.weights, "combined", comparison.combination_type, **extra)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"weights: {first_line(error)}; combination_type=cat takes different ranks") from error
    held.set_adapter("combined")


def table(results: list[Scored]) -> str:
    """Side by side, for a terminal."""
    metrics = list(results[0].scores)
    rows = [["adapter", *metrics, "size", "swap"]]
    for result in results:
        size = formatting.gib(result.bytes) if result.bytes is not None else ""
        swap = f"{result.swap_seconds * 1000:.1f} ms" if result.swap_seconds is not None else ""
        rows.append([result.name, *(f"{result.scores[metric]:.4f}" for metric in metrics), size, swap])
    return formatting.table(rows)
