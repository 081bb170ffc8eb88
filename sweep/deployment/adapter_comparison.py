"""Compare several adapters on one base, which is loaded once: swap, score and combine them."""

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
from sweep.tasks import Evaluation

BASE, COMBINED = "(base alone)", "(combined)"


_TASKS = {"SEQ_CLS": "classification", "CAUSAL_LM": "generation", "SEQ_2_SEQ_LM": "seq2seq"}  # by PEFT's name


class Scored(NamedTuple):
    """`bytes` is the adapter's size on the disk, `swap_seconds` the time to activate it; None without an adapter."""

    name: str
    scores: dict[str, float]
    bytes: int | None
    swap_seconds: float | None


def compare(comparison: AdapterComparison) -> list[Scored]:
    """The scores of the base, of each adapter and of their weighted combination on the validation examples. UserError
    if the adapters do not fit the base, or each other."""
    _require_their_task(comparison.adapters, comparison.task.task_type)
    _require_their_base(comparison.adapters, comparison.model.prepare(silent).get("model_revision", ""))
    setup = EvaluationSetup.at(comparison, comparison.precision, comparison.max_length, comparison.batch_size)
    base = comparison.variant.prepare(setup.base(), False)
    shown = shown_names(comparison.adapters)
    # PEFT searches an adapter's weights by the adapter's name in their names: the name "0" would match layer 0.
    names = [f"adapter_{index}" for index in range(len(shown))]
    loaded = _load(base, dict(zip(names, comparison.adapters, strict=True))) if names else base
    out = Path(comparison.out) if comparison.out else None
    results: list[Scored] = []

    def keep(name: str, evaluation: Evaluation, size: int | None, swap: float | None) -> None:
        results.append(Scored(name, evaluation.scores, size, swap))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(evaluation.rows), out / f"{name.strip('()')}.parquet")

    if not names:
        keep(BASE, setup.score(base), None, None)
    elif not any(getattr(config, "modules_to_save", None) for config in loaded.peft_config.values()):
        with loaded.disable_adapter():  # a new head is untrained without the adapter
            keep(BASE, setup.score(loaded), None, None)
    for name, show, folder in zip(names, shown, comparison.adapters, strict=True):
        started = time.perf_counter()
        loaded.set_adapter(name)
        swap = time.perf_counter() - started
        keep(show, setup.score(loaded), sum(file.stat().st_size for file in Path(folder).glob("adapter_*")), swap)
    if comparison.weights is not None:
        _combine(loaded, names, comparison)
        keep(COMBINED, setup.score(loaded), None, None)
        if out is not None:
            loaded.save_pretrained(str(out), selected_adapters=["combined"], save_embedding_layers=False)
            (out / "README.md").unlink(missing_ok=True)  # PEFT writes an empty template
    if out is not None:
        (out / "evaluation.json").write_text(json.dumps([result._asdict() for result in results], indent=1))
    return results


def shown_names(folders: list[str]) -> list[str]:
    """The folders' names, with as many parent folders as make them unique."""
    parts = [Path(folder).resolve().parts for folder in folders]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    names = ["-".join(part[-depth:]) for part in parts]
    if len(set(names)) < len(names):
        raise UserError(f"adapters: {', '.join(folders)} names a folder twice")
    return names


def _require_their_task(folders: list[str], task_type: str) -> None:
    """Check the kind of task that PEFT stores with an adapter: a base with another head could not even be loaded."""
    for folder in folders:
        config = Path(folder, "adapter_config.json")
        found = json.loads(config.read_text()).get("task_type") if config.is_file() else None
        if found in _TASKS and found != task_type:
            raise UserError(
                f"adapter {folder} is for {found}, and task is for {task_type}; give the task and the data of its run: "
                f"task={_TASKS[found]} data@task.data=…"
            )


def _require_their_base(folders: list[str], revision: str) -> None:
    """Check the base that an export names: PEFT loads an adapter onto every base of the same shape."""
    for folder in folders:
        manifest = Path(folder, MANIFEST)
        wanted = json.loads(manifest.read_text()).get("base_revision") if manifest.is_file() else None
        alike = wanted is not None and wanted.startswith("sha256:") == revision.startswith("sha256:")
        if alike and wanted != revision:
            raise UserError(
                f"adapter {folder} needs another base: it was trained on {wanted}, and this base is {revision}. "
                "Trained weights fit their own base only"
            )


def _load(base: object, folders: dict[str, str]) -> PeftModel:
    (first, folder), *others = folders.items()
    try:
        loaded = PeftModel.from_pretrained(base, folder, adapter_name=first)
        for name, folder in others:
            loaded.load_adapter(folder, adapter_name=name)
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"adapter {folder} cannot be loaded with the others: {first_line(error)}\n"
            "The adapters of one command must have the same base and the same family (LoRA with LoRA)."
        ) from error
    return loaded.eval()


def _combine(loaded: PeftModel, names: list[str], comparison: AdapterComparison) -> None:
    """Activate the weighted sum of LoRA adapters. It is exactly W + Σ wᵢ·ΔWᵢ for "cat" (the ranks add up) and for "svd"
    of full rank. "linear" weights the factors A and B instead, by PEFT's rule, and needs equal ranks."""
    configs = [loaded.peft_config[name] for name in names]
    if any(not hasattr(config, "lora_alpha") or config.use_dora or config.modules_to_save for config in configs):
        raise UserError(
            "weights: only LoRA adapters without a magnitude (DoRA) and without their own head can be combined"
        )
    extra = {"density": 0.5} if comparison.combination_type.startswith(("ties", "dare", "magnitude")) else {}
    try:
        loaded.add_weighted_adapter(names, comparison.weights, "combined", comparison.combination_type, **extra)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"weights: {first_line(error)}; combination_type=cat takes different ranks") from error
    loaded.set_adapter("combined")


def table(results: list[Scored]) -> str:
    """The results as a table of text."""
    metrics = list(results[0].scores)
    rows = [["adapter", *metrics, "size", "swap"]]
    for result in results:
        size = formatting.gib(result.bytes) if result.bytes is not None else ""
        swap = f"{result.swap_seconds * 1000:.1f} ms" if result.swap_seconds is not None else ""
        rows.append([result.name, *(f"{result.scores[metric]:.4f}" for metric in metrics), size, swap])
    return formatting.table(rows)
