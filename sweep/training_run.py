"""READ THIS FIRST: one run, from its config to its Record, in a process of its own."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import set_seed

from sweep.config.schema import RunConfig, parse
from sweep.core.artifacts import EXAMPLES_FILE, TRACEBACK_FILE, WEIGHTS_FOLDER
from sweep.core.errors import UserError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import Reporter
from sweep.core.run_request import RunRequest
from sweep.diagnostics import sanity_checks
from sweep.meters import Meters
from sweep.meters.measurements import Measurements
from sweep.meters.other_processes import out_of_memory_reason
from sweep.metrics.standard_error import standard_error
from sweep.models.compatibility import check_checkpointing
from sweep.runtime import distributed, precision
from sweep.runtime.out_of_memory import is_out_of_memory
from sweep.tasks import Evaluation, Task
from sweep.training import trained_weights
from sweep.training.changed_weights import SampledWeights
from sweep.training.divergence import Diverged
from sweep.training.fit import Pruned, fit
from sweep.training.options import Train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sweep.datasets import Example


def run_training(request: RunRequest, report: Reporter) -> Record:
    """One training run. It always returns a Record: an error becomes an outcome with its reason."""
    folder = Path(request.folder)
    measured = Measurements(device_type(), Meters(**request.config.get("meters", {})), folder)
    outcome, reason = Outcome.OK, ""
    try:
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
    task = config.task.bind(data)

    with meter.phase("load"), meter.window():
        tokenizer = config.model.load_tokenizer()
        model = _load_and_wrap(config, task, tokenizer, device)
        meter.watch(model)
    total, trainable = count_parameters(model)
    measured.add({"total_params": total, "trainable_params": trainable})

    examples = task.encode(tokenizer, data.train, config.train.max_length)
    measured.add({
        "data/train_examples": len(data.train) - examples.dropped,
        "data/dropped_examples": examples.dropped,
        "data/truncated_examples": examples.truncated,
        "data/truncated_fraction": examples.truncated / len(data.train),
        "data/contaminated_fraction": data.leaked / len(data.validation),
    })  # fmt: skip
    train = config.train.with_steps(len(examples))
    task.verify(model, examples)
    evaluator = _Evaluator(task, model, tokenizer, data.validation, train, device)
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
        )
    meter.watch(model)  # without the optimizer: its state would stay in memory during evaluation
    measured.add({
        "train/steps": fitted.steps,
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


def _load_and_wrap(config: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, device: str) -> torch.nn.Module:
    """The base model on its device, wrapped by the variant."""
    train, variant = config.train, config.variant
    compute = precision.resolve(train.precision, device)
    quantization = variant.quantization(precision.dtype_of(compute), task.task_type, train.sharded)
    # A sharded model moves to the devices part by part: the whole model may be too large for each of them.
    place = "cpu" if train.sharded and not variant.quantized else device
    base = config.base.load(task.auto_class(), quantization, place, task.model_arguments(tokenizer))
    model = variant.wrap(base, task.task_type, train.activation_checkpointing)
    precision.cast_weights(model, compute, train.trained_weights)
    return model


class _Evaluator(NamedTuple):
    """Evaluates a model on the validation examples, in the precision of training."""

    task: Task
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    validation: Sequence[Example]
    train: Train
    device: str

    def evaluate(self, metered: Callable[[int], AbstractContextManager[None]]) -> Evaluation:
        """`metered` gives the context of each batch, by its number."""
        self.model.eval()
        with precision.autocast(self.train.precision, self.device):
            return self.task.evaluate(
                self.model,
                self.tokenizer,
                self.validation,
                self.train.eval_batch_size,
                metered=metered,
                max_length=self.train.max_length,
            )

    def evaluate_during_training(self) -> tuple[float, float]:
        """The score, and the standard error of its mean over the examples; infinite where the score is not a mean."""
        found = self.evaluate(lambda batch: nullcontext())
        values = [row[self.task.score] for row in found.rows if self.task.score in row]
        return found.scores[self.task.score], standard_error(values)

    def off_task_metrics(self) -> dict[str, float]:
        """Metrics on data of other tasks, which show what the model forgets."""
        with precision.autocast(self.train.precision, self.device):
            return self.task.off_task_metrics(self.model, self.tokenizer, self.train.max_length)


def prepare(config: Mapping[str, Any], report: Reporter) -> dict[str, str]:
    """Make data and base model available, and check that they fit each other.

    Returns:
        The facts of data, model and machine that the conditions contain.

    Raises:
        UserError: for a fault that every run would have: unusable data, a damaged checkpoint.
    """
    parsed = parse(config)
    device = device_type()
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
    data_facts = parsed.task.data.prepare(report)
    data = parsed.task.data.load()
    task = parsed.task.bind(data)
    model_facts = parsed.model.prepare(report)
    parsed.model.check(task.auto_class())
    if parsed.train.activation_checkpointing:
        check_checkpointing(parsed.model.architecture(), task.auto_class())
    task.check(parsed.model.load_tokenizer(), data.train)
    return {
        "device": device_name(),
        "precision": precision.resolve(parsed.train.precision, device),
        **data_facts,
        **model_facts,
    }


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


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(all, trainable). A 4-bit weight counts its original elements, not its packed bytes."""
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
