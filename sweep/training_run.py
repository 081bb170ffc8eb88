"""READ THIS FIRST: one run, from its config to its Record, in a process of its own."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import set_seed

from sweep.config.schema import RunConfig, parse
from sweep.core.artifacts import EXAMPLES_FILE, TRACEBACK_FILE, WEIGHTS_FOLDER
from sweep.core.errors import UserError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import Reporter
from sweep.core.run_request import RunRequest
from sweep.diagnostics import sanity_checks
from sweep.memory import Machine
from sweep.meters import Meters
from sweep.meters.measurements import Measurements
from sweep.meters.other_processes import out_of_memory_reason
from sweep.models.compatibility import check_checkpointing
from sweep.runtime import cuda_device, distributed, nvml, precision, visible_devices
from sweep.runtime.out_of_memory import is_out_of_memory
from sweep.tasks import Task
from sweep.tasks.lengths import usual_length
from sweep.tasks.row_checks import check_rows
from sweep.training import trained_weights
from sweep.training.changed_weights import SampledWeights
from sweep.training.divergence import Diverged, require_finite_weights
from sweep.training.evaluator import Evaluator
from sweep.training.extensions import check_extensions
from sweep.training.fit import fit
from sweep.training.parameter_counts import block_fractions, count_parameters
from sweep.training.watcher import Pruned

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)


def run_training(request: RunRequest, report: Reporter) -> Record:
    """One training run. It always returns a Record: an error becomes an outcome with its reason."""
    folder = Path(request.folder)
    measured = Measurements(device_type(), Meters(**request.config.get("meters", {})), folder)
    outcome, reason = Outcome.OK, ""
    try:
        if visible_devices.named():
            cuda_device.require_leased(request.record.facts.get("device"), device_name())
        _run_phases(parse(request.config), folder, measured, report)
    except Diverged as error:
        outcome, reason = Outcome.DIVERGED, str(error)
    except Pruned as error:
        outcome, reason = Outcome.PRUNED, str(error)
        measured.add({"score": error.score, "train/steps": error.step})
    except UserError as error:
        outcome, reason = Outcome.FAILED, str(error)
    except Exception as error:  # noqa: BLE001  one failed run must not end a study
        outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        if measured.memory.ran_out or is_out_of_memory(error):
            figures = measured.memory.out_of_memory()
            measured.add(figures)
            others = out_of_memory_reason({**request.record.measurements, **figures})
            outcome, reason = (Outcome.FAILED, f"{others} ({reason})") if others else (Outcome.OOM, reason)
        Path(folder, TRACEBACK_FILE).write_text(traceback.format_exc())
    return measured.close(request.record, outcome, reason)


def _run_phases(config: RunConfig, folder: Path, measured: Measurements, report: Reporter) -> None:
    """Data ▸ load and wrap ▸ encode ▸ train ▸ save ▸ evaluate."""
    device, meter = device_type(), measured.memory
    meter.extra = tuple(config.meters.extra.values())
    set_seed(config.seed)
    data = config.task.data.load()
    task = config.task.bind(data).for_base(config.model.architecture())

    with meter.phase("load"), meter.window():
        tokenizer = config.model.load_tokenizer()
        model, fractions = _load_and_wrap(config, task, tokenizer, device)
        meter.watch(model)
    total, trainable = count_parameters(model)
    measured.add({"total_params": total, "trainable_params": trainable, **fractions})

    max_length = (
        config.train.max_length or usual_length(task, tokenizer, data.train, config.model.architecture()).tokens
    )
    examples = task.encode(tokenizer, data.train, max_length)
    measured.add({
        "data/train_examples": len(data.train) - examples.dropped,
        "data/dropped_examples": examples.dropped,
        "data/truncated_examples": examples.truncated,
        "data/truncated_fraction": examples.truncated / len(data.train),
        "data/contaminated_fraction": data.leaked / len(data.validation),
        **task.describe(data),
    })  # fmt: skip
    train = replace(config.train, max_length=max_length).with_steps(len(examples)).with_loss(task, examples)
    task.verify(model, examples)
    evaluator = Evaluator(task, model, tokenizer, data.validation, train, device)
    if not train.sharded:  # a model of several devices is on the CPU until training
        evaluator.rehearse()
    off_task_before = evaluator.off_task_metrics()
    before = SampledWeights(model)

    with meter.phase("train"), measured.energy:
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
            evaluate=evaluator.evaluate_during_training,
            aside=measured.energy.paused,
            higher_is_better=task.higher_is_better,
        )
    require_finite_weights(model)
    meter.watch(model)  # without the optimizer: its state would stay in memory during evaluation
    measured.add({
        "train/steps": fitted.steps,
        **({"train/planned_steps": train.max_steps} if fitted.steps < train.max_steps else {}),
        "train_seconds": fitted.train_seconds,
        "train/final_loss": fitted.loss,
        "train/tokens": fitted.tokens,
        "tokens_per_second": fitted.tokens_per_second,
        "train/changed_weights_fraction": before.changed_fraction(),
        **sanity_checks.moved(fitted.losses),
    })  # fmt: skip
    if not distributed.is_main() and not train.sharded:
        return  # every rank holds the same model: the main rank saves and evaluates
    measured.add(trained_weights.keep(config.variant, model, folder / WEIGHTS_FOLDER, config.tracking))

    with meter.phase("eval"):
        report.progress("evaluating", 0, 1)
        evaluation = evaluator.evaluate(meter.batch)
    measured.add({f"eval/{name}": value for name, value in evaluation.scores.items() if math.isfinite(value)})
    measured.add(
        {
            "score": evaluation.scores[task.score],
            "data/validation_truncated_examples": evaluation.truncated,
            "eval/examples": len(evaluation.rows),
            **sanity_checks.chance(task.metrics[task.score], evaluation.rows),
        },
        evaluation.facts,
    )
    for name, after in evaluator.off_task_metrics().items():
        measured.add({f"eval/{name}": after, f"eval/{name}_increase": after - off_task_before[name]})
    if distributed.is_main():
        _write_parquet(folder / EXAMPLES_FILE, evaluation.rows)


def _load_and_wrap(
    config: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, device: str
) -> tuple[torch.nn.Module, dict[str, float]]:
    """The base model on its device, wrapped by the variant, and the shares of it that are adapted and quantised."""
    train, variant = config.train, config.variant
    compute = precision.resolve(train.precision, device)
    quantization = variant.quantization(precision.dtype_of(compute), task.task_type, train.sharded)
    # A sharded model moves to the devices part by part: the whole model may be too large for each of them.
    place = "cpu" if train.sharded and not variant.quantized else device
    base = config.base.load(task.auto_class(), quantization, place, task.model_arguments(tokenizer))
    model = variant.wrap(base, task.task_type, train.activation_checkpointing)
    precision.cast_weights(model, compute, train.trained_weights)
    return model, block_fractions(model, base)


def prepare(config: Mapping[str, Any], report: Reporter) -> tuple[dict[str, str], dict[str, str], Machine]:
    """Make data and base model available, and check that they fit each other and the device.

    Returns:
        The facts of data, model and device that the conditions contain; the facts of the software on a GPU for the
        record; the device that runs are predicted for.

    Raises:
        UserError: for a fault that every run would have: unusable data, a damaged checkpoint, a driver that is too old.
    """
    parsed = parse(config)
    device = device_type()
    if device == "cuda":
        cuda_device.require_usable()
    if parsed.train.use_liger_kernel and (device != "cuda" or find_spec("liger_kernel") is None):
        raise UserError(
            "train.use_liger_kernel needs a CUDA GPU and the package liger-kernel (pip install liger-kernel)"
        )
    if parsed.train.precision == "fp16" and device != "cuda":
        raise UserError(
            "train.precision = fp16 needs a GPU: on the CPU, accelerate trains in fp32 without a warning; use bf16, or "
            "fp32"
        )
    if parsed.train.precision == "bf16" and device == "cuda" and precision.resolve("auto", device) != "bf16":
        raise UserError(
            f"train.precision = bf16 needs a GPU of compute capability 8.0 or higher, and {device_name()} has less; "
            "use auto, which is fp16 there, or fp32"
        )
    if parsed.train.sharded and device != "cuda":
        raise UserError(
            "train.parallelism = fsdp needs GPUs: on the CPU, accelerate holds the whole model on every rank; use ddp"
        )
    check_extensions(parsed.train)
    data_facts = parsed.task.data.prepare(report)
    data = parsed.task.data.load()
    task = parsed.task.bind(data)
    model_facts = parsed.model.prepare(report)
    parsed.model.check(task.auto_class())
    base = parsed.model.architecture()
    task = task.for_base(base)
    for remark in task.remarks(data):
        log.warning(remark)
    if parsed.train.activation_checkpointing:
        check_checkpointing(base, task.auto_class())
    tokenizer, max_length = parsed.model.load_tokenizer(), parsed.train.max_length
    if max_length is None:
        found = usual_length(task, tokenizer, data.train, base)
        max_length = found.tokens
        log.warning(found.sentence())
    examples = check_rows(task, tokenizer, data, max_length, base)
    software = cuda_device.software() if device == "cuda" else {}
    facts = {
        "device": device_name(),
        "precision": precision.resolve(parsed.train.precision, device),
        **software,
        **data_facts,
        "data_examples": str(examples),
        **model_facts,
        "train.max_length": str(max_length),
    }
    driver = nvml.driver() if device == "cuda" else None
    recorded = {**software, **({"version.driver": driver.version} if driver else {})}
    return facts, recorded, _machine(device)


def _machine(device: str) -> Machine:
    """The device of this process. CUDA gives programs less memory than NVML reports."""
    if device == "cpu":
        return Machine(kind="cpu")
    return Machine(
        kind="cuda",
        capability=torch.cuda.get_device_capability(),
        name=device_name(),
        capacity_bytes=torch.cuda.mem_get_info()[1],
    )


def device_type() -> str:
    """The type of device that runs use: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The name that the maker gives the device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'CPU'}, {torch.get_num_threads()} threads"


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
