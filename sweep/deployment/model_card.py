"""The card of an exported model: its base, its score, its memory, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweep.core import formatting, provenance, redaction
from sweep.core.measurements import PEAK_MEMORY_BYTES
from sweep.deployment.score_check import Difference
from sweep.deployment.stored_run import StoredRun


class ExportedModel(NamedTuple):
    """An export. `is_adapter` is True for an adapter, which is loaded onto its base, and False for a whole model.
    `dtype` is the precision of its weights; `note` describes the merge and the outputs, if needed; `loading` has the
    arguments to load an adapter's base; `test` has its scores on the test split, if there is one."""

    run: StoredRun
    folder: Path
    is_adapter: bool
    dtype: str
    note: str
    difference: Difference
    exported_bytes: int
    loading: Mapping[str, Any]
    test: Mapping[str, float] = {}
    registered: str | None = None


def text(exported: ExportedModel) -> str:
    """Markdown, with the Hub's metadata at its start."""
    run, record = exported.run, exported.run.record
    base, _ = run.config.model.location()
    measured = record.measurements
    steps = measured.get("train/steps") or run.config.train.max_steps
    facts = {
        "Base": f"`{redaction.text(base)}`, revision {run.base_revision or 'unknown'}",
        "Variant": f"`{record.variant}`; setting `{record.setting}`, seed {record.seed} ({run.why})",
        f"Score ({record.facts.get('metric', 'score')})": f"{exported.difference} (validation)",
        "Peak memory in training": _memory(measured.get(PEAK_MEMORY_BYTES), record.facts.get("memory_source")),
        "Trainable parameters": f"{measured['trainable_params']:,.0f} of {measured['total_params']:,.0f}",
        "Training": f"{steps:.0f} steps of {run.config.train.batch_size}, "
        f"learning rate {run.config.variant.learning_rate:g}, {measured['train_seconds']:.0f} s on "
        f"{record.facts.get('device', 'an unknown device')}",
        "Size": f"{formatting.gib(exported.exported_bytes)}, {exported.dtype}",
        "Command": f"`{redaction.text(record.facts.get('command', 'unknown'))}`",
        "Code": f"paretune {record.facts.get('version.paretune', '')}, commit {record.facts.get('commit', 'unknown')}",
        "Libraries": ", ".join(f"{name} {version}" for name, version in _libraries(record.facts).items()),
        "MLflow run": f"`{run.run_id}`" + (f", study {record.study}" if record.study else ""),
    }
    if exported.test:
        facts["Test split"] = ", ".join(f"{name} {score:.4g}" for name, score in exported.test.items())
    head = [
        "---",
        f"base_model: {redaction.text(base)}",
        "library_name: " + ("peft" if exported.is_adapter else "transformers"),
    ]
    lines = [*head, "tags: [paretune]", "---", "", f"# {record.setting}, seed {record.seed}", ""]
    if exported.note:
        lines += [exported.note, ""]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), ""]
    return "\n".join([*lines, "```python", *_loading(exported, base), "```", ""])


def _loading(exported: ExportedModel, base: str) -> list[str]:
    """The code that loads the scored model with transformers and PEFT."""
    auto = exported.run.config.task.auto_class().__name__
    tokenizer = f'tokenizer = AutoTokenizer.from_pretrained("{exported.folder}")'
    if not exported.is_adapter:
        head = f"from transformers import {auto}, AutoTokenizer"
        return [head, "", f'model = {auto}.from_pretrained("{exported.folder}")', tokenizer]
    arguments = {
        key: repr(value) for key, value in exported.loading.items() if value is not None and key != "num_labels"
    }
    quantization, names = exported.loading.get("quantization_config"), [auto, "AutoTokenizer"]
    if quantization is not None:
        options = {key: value for key, value in quantization.to_diff_dict().items() if key != "quant_method"}
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        arguments["quantization_config"] = f"BitsAndBytesConfig({given})"
        names.append("BitsAndBytesConfig")
    revision = exported.run.base_revision
    if revision is not None and not revision.startswith("sha256:"):
        arguments["revision"] = repr(revision)
    lines = [f"    {key}={value}," for key, value in arguments.items()]
    return [
        "from peft import PeftModel",
        f"from transformers import {', '.join(names)}",
        "",
        f"base = {auto}.from_pretrained(",
        f'    "{redaction.text(base)}",',
        *lines,
        ")",
        f'model = PeftModel.from_pretrained(base, "{exported.folder}")',
        tokenizer,
    ]


def _memory(peak: float | None, source: str | None) -> str:
    return "not measured" if peak is None else f"{formatting.gib(peak)} ({source})"


def _libraries(facts: dict[str, str]) -> dict[str, str]:
    return {name: facts[f"version.{name}"] for name in provenance.LIBRARIES if f"version.{name}" in facts}
