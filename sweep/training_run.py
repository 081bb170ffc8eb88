"""READ THIS FIRST: one run, from a config to its Record, in a process of its own."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from sweep.config.schema import parse
from sweep.core.errors import UserError
from sweep.core.job import EXAMPLES_FILE, TIMELINE_FILE, TRACEBACK_FILE, WEIGHTS_FOLDER, RunRequest
from sweep.core.record import Outcome, Record
from sweep.core.reporter import Reporter
from sweep.diagnostics import sanity_checks
from sweep.meters import MemoryMeter, Meters, memory_meter, memory_timeline
from sweep.meters.energy import EnergyMeter
from sweep.metrics.standard_error import standard_error
from sweep.models.compatibility import check_checkpointing
from sweep.runtime import distributed, precision
from sweep.runtime.out_of_memory import is_out_of_memory
from sweep.tasks import Task
from sweep.training import trained_weights
from sweep.training.divergence import Diverged
from sweep.training.fit import Pruned, fit
from sweep.training.options import Train


def run(job: RunRequest, report: Reporter) -> Record:
    """One training run. It always yields a Record: what goes wrong is an outcome with a reason."""
    folder = Path(job.folder)
    meter = memory_meter(device_type(), Meters(**job.config.get("meters", {})), folder)
    energy = EnergyMeter()
    measured: dict[str, float] = {}
    facts: dict[str, str] = {}
    outcome, reason = Outcome.OK, ""
    try:
        _measure(job, meter, energy, measured, facts, report)
    except Diverged as error:
        outcome, reason = Outcome.DIVERGED, str(error)
    except Pruned as error:
        outcome, reason = Outcome.PRUNED, str(error)
        measured["score"], measured["train/steps"] = error.score, error.step
    except UserError as error:
        outcome, reason = Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001  an outcome, never the end of a study
        outcome = Outcome.OOM if is_out_of_memory(error) else Outcome.FAILED
        if outcome is Outcome.OOM:
            measured.update(meter.out_of_memory())
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        Path(folder, TRACEBACK_FILE).write_text(traceback.format_exc())
    train_peak = meter.readings.get("memory/train_max_allocated_bytes")
    if train_peak is not None:
        measured["max_memory_allocated"] = train_peak
    if energy.joules is not None:
        measured["energy_joules"] = energy.joules
    memory_timeline.write(meter.timeline, folder / TIMELINE_FILE)
    record = replace(job.record, facts={**job.record.facts, **meter.facts, "energy_source": energy.source, **facts})
    return record.ended(outcome, reason, **meter.readings, **measured)


def _measure(
    job: RunRequest,
    meter: MemoryMeter,
    energy: EnergyMeter,
    measured: dict[str, float],
    facts: dict[str, str],
    report: Reporter,
) -> None:
    """Data ▸ load ▸ wrap ▸ train ▸ evaluate. A failure keeps what was measured before it."""
    config = parse(job.config)
    meter.extra = tuple(config.meters.extra.values())
    device = device_type()
    set_seed(config.seed)
    data = config.task.data.load()
    task = config.task.bind(data)

    with meter.phase("load"), meter.window():
        tokenizer = config.model.load_tokenizer()
        compute = precision.resolve(config.train.precision, device)
        quantization = config.variant.quantization(precision.dtype_of(compute), task.task_type, config.train.sharded)
        # A model that is to be split comes to the devices part by part: whole, it may fit on none of them.
        place = "cpu" if config.train.sharded and not config.variant.quantized else device
        base = config.model.load(task.auto_class(), quantization, place, task.model_arguments(tokenizer))
        model = config.variant.wrap(base, task.task_type, config.train.activation_checkpointing)
        precision.cast_fp16_weights(model, compute)
        meter.watch(model)
    measured["total_params"], measured["trainable_params"] = count_parameters(model)

    examples = task.encode(tokenizer, data.train, config.train.max_length)
    measured["data/train_examples"] = len(data.train) - examples.dropped
    measured["data/dropped_examples"] = examples.dropped
    measured["data/truncated_examples"] = examples.truncated
    measured["data/truncated_fraction"] = examples.truncated / len(data.train)
    measured["data/contaminated_fraction"] = data.leaked / len(data.validation)
    train = config.train.with_steps(len(examples))
    task.verify(model, examples)
    beside = _beside(task, model, tokenizer, train, device)

    with meter.phase("train"), energy:
        fitted = fit(
            model,
            examples,
            task.collator(tokenizer),
            train,
            learning_rate=config.variant.learning_rate * config.study.learning_rate_multiplier,
            seed=config.seed,
            optimizer=None if train.sharded else config.variant.optimizer(device),
            is_causal=task.is_causal,
            meter=meter,
            report=report,
            evaluate=lambda: _look(task, model, tokenizer, data.validation, train, device),
        )
    measured["train/steps"] = fitted.steps
    measured["train_seconds"] = fitted.train_seconds
    measured["train/final_loss"] = fitted.loss
    measured["train/tokens"] = fitted.tokens
    measured.update(sanity_checks.moved(fitted.losses))
    if fitted.tokens_per_second is not None:
        measured["tokens_per_second"] = fitted.tokens_per_second
    if not distributed.is_main() and not train.sharded:
        return  # every rank holds the same model: one of them writes and evaluates
    measured.update(trained_weights.keep(config.variant, model, Path(job.folder, WEIGHTS_FOLDER), config.tracking))

    with meter.phase("eval"), precision.autocast(train.precision, device):
        model.eval()
        report.progress("evaluating", 0, 1)
        evaluation = task.evaluate(
            model,
            tokenizer,
            data.validation,
            train.eval_batch_size,
            metered=meter.batch,
            max_length=train.max_length,
        )
    measured.update({f"eval/{name}": value for name, value in evaluation.scores.items() if math.isfinite(value)})
    measured["data/validation_truncated_examples"] = evaluation.truncated
    measured["score"] = evaluation.scores[task.score]
    measured["eval/examples"] = len(evaluation.rows)
    measured.update(sanity_checks.chance(task.metrics[task.score], evaluation.rows))
    facts.update(evaluation.facts)
    for name, after in _beside(task, model, tokenizer, train, device).items():
        measured[f"eval/{name}"] = after
        measured[f"eval/{name}_rise"] = after - beside[name]
    if distributed.is_main():
        _write_parquet(Path(job.folder, EXAMPLES_FILE), evaluation.rows)


def _beside(task: Task, model: torch.nn.Module, tokenizer: Any, train: Train, device: str) -> dict[str, float]:
    with precision.autocast(train.precision, device):
        return task.off_task_metrics(model, tokenizer, train.max_length)


def _look(
    task: Task, model: torch.nn.Module, tokenizer: Any, validation: Any, train: Train, device: str
) -> tuple[float, float]:
    """The score of a model that still learns, and the standard error of its mean over the validation examples; infinite
    where the score is no mean."""
    with precision.autocast(train.precision, device):
        found = task.evaluate(
            model,
            tokenizer,
            validation,
            train.eval_batch_size,
            metered=lambda batch: nullcontext(),
            max_length=train.max_length,
        )
    values = [row[task.score] for row in found.rows if task.score in row]
    return found.scores[task.score], standard_error(values)


def prepare(config: Mapping[str, Any], report: Reporter) -> dict[str, str]:
    """Make sure that data and base model are there and fit each other, and tell what the conditions need to know of
    them and of the machine.

    Raises:
        UserError: for what would fail every run: data that cannot be learnt from, a damaged checkpoint.
    """
    parsed = parse(config)
    device = device_type()
    if parsed.train.use_liger_kernel and (device != "cuda" or find_spec("liger_kernel") is None):
        raise UserError(
            "train.use_liger_kernel needs a CUDA GPU and the package liger-kernel (pip install liger-kernel)"
        )
    if parsed.train.precision == "fp16" and device != "cuda":
        raise UserError(
            "train.precision = fp16 needs a GPU: on the CPU, accelerate would train in fp32 without a word; use bf16, "
            "or fp32"
        )
    data_facts = parsed.task.data.prepare(report)
    data = parsed.task.data.load()
    task = parsed.task.bind(data)
    model_facts = parsed.model.prepare(report)
    parsed.model.check(task.auto_class())
    if parsed.train.activation_checkpointing:
        check_checkpointing(parsed.model, task.auto_class())
    task.check(parsed.model.load_tokenizer(), data.train)
    return {
        "device": device_name(),
        "precision": precision.resolve(parsed.train.precision, device),
        **data_facts,
        **model_facts,
    }


def device_type() -> str:
    """Where runs go: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The kind of device, in the words of its maker."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'CPU'}, {torch.get_num_threads()} threads"


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(all, trainable). A 4-bit weight counts with the elements that it stands for, not with its packed bytes."""
    total = trainable = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        size = math.prod(state.shape) if state is not None else parameter.numel()
        total += size
        trainable += size if parameter.requires_grad else 0
    return total, trainable


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
