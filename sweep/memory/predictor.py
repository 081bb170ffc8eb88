"""Predictions, made in a process of its own: this module imports torch, and its patches last as long as the process."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from sweep.config.schema import parse
from sweep.core.errors import UserError, first_line
from sweep.core.reporter import Reporter
from sweep.memory import workload
from sweep.memory.closed_form import estimate
from sweep.memory.prediction import OF_SEED, Machine, Prediction, Unpredictable
from sweep.memory.simulation import peaks, run_trace
from sweep.models import compatibility
from sweep.tasks.batching import positions_in
from sweep.variants.lora import LoRA8bit

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweep.config.schema import RunConfig
    from sweep.memory.workload import Workload

log = logging.getLogger(__name__)

# Keys of a config that memory does not depend on. The same holds for `seed`, `study` and `tracking`.
_IDLE_VARIANT = ("name", "learning_rate")
_IDLE_TRAIN = (
    "lr_scheduler_type", "warmup_ratio", "adam_beta2", "weight_decay", "early_stopping_patience",
)  # fmt: skip


def predict_all(
    configs: Sequence[Mapping[str, Any]],
    machine: Machine,
    known: dict[str, Prediction | Unpredictable],
    report: Reporter,
) -> tuple[list[Prediction | Unpredictable], dict[str, Prediction | Unpredictable]]:
    """One answer per config, and all answers known afterwards. Configs that are equal in all that memory depends on
    share one execution."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # bitsandbytes' Trainer path
    architectures: dict[str, Any] = {}
    workloads: dict[str, Any] = {}
    answers = []
    for done, plain in enumerate(configs):
        report.progress("predicting memory", done, len(configs))
        try:
            config = parse(plain)
            architecture = _once(architectures, _text(plain["model"]), config.model.architecture)
            of_workload = _text({name: plain[name] for name in ("model", "task", "train", "seed")})
            found = _once(workloads, of_workload, partial(workload.find, config, machine))
        except UserError as error:
            answers.append(Unpredictable(reason=str(error)))
            continue
        key = _key(plain, found)
        if key not in known:
            known[key] = answer(config, found, machine, architecture)
        answers.append(known[key])
    return answers, known


def _once(known: dict[str, Any], key: str, find: Callable[[], Any]) -> Any:
    """The result of `find`, called once for each key. Where it raised UserError, the error is raised each time."""
    if key not in known:
        try:
            known[key] = find()
        except UserError as error:
            known[key] = error
    if isinstance(known[key], UserError):
        raise known[key]
    return known[key]


def _key(plain: Mapping[str, Any], found: Workload) -> str:
    variant = {key: value for key, value in plain["variant"].items() if key not in _IDLE_VARIANT}
    train = {key: value for key, value in plain["train"].items() if key not in _IDLE_TRAIN}
    return _text([plain["model"], plain["task"], variant, train, repr(found)])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def answer(
    config: RunConfig, found: Workload, machine: Machine, architecture: PretrainedConfig
) -> Prediction | Unpredictable:
    """The prediction by execution; by the closed form where the model's code does not run on fake tensors."""
    reason = _unsupported(config, found, architecture)
    if reason:
        return Unpredictable(reason=reason)
    auto_class = config.task.auto_class()
    try:
        path, _ = config.model.location()
        kernel, own_code = config.model.attention, config.model.trust_remote_code
        compatibility.check_architecture(path, architecture, auto_class, kernel, own_code=own_code, here=False)
        if config.train.activation_checkpointing:
            compatibility.check_checkpointing(architecture, auto_class)
        return trace_tier(config, found, machine, architecture)
    except UserError as error:
        return Unpredictable(reason=str(error))
    except Exception as error:
        log.debug("the trace failed", exc_info=True)
        reason = f"its code cannot run on fake tensors ({_as_text(error)})"
    fallback = estimate.of_run(config, machine, found, architecture)
    if isinstance(fallback, Unpredictable):
        return Unpredictable(reason=f"{reason}; {fallback.reason}")
    return dataclasses.replace(fallback, assumptions={**fallback.assumptions, "not_executed": reason})


def _as_text(error: Exception) -> str:
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return f"it reads values, by {error.func}, and fake tensors have none"
    return f"{type(error).__name__}: {first_line(error)}"


def _unsupported(config: RunConfig, found: Workload, architecture: PretrainedConfig) -> str | None:
    """Why this run cannot be predicted at all; None where it can."""
    if config.train.sharded:
        return "a model split over several devices (train.parallelism=fsdp) is not supported yet"
    if config.train.use_liger_kernel:
        return (
            "train.use_liger_kernel=true: Liger's kernels run on a GPU only, and their memory is not known here. "
            "Without them (train.use_liger_kernel=false) a run needs more: what fits then fits with them too"
        )
    positions = positions_in(architecture.to_dict())
    if positions is not None and found.length > positions:
        return (
            f"sequences of {found.length} tokens exceed the model's {positions} positions; lower train.max_length = "
            f"{config.train.max_length}"
        )
    return None


def trace_tier(config: RunConfig, found: Workload, machine: Machine, architecture: Any) -> Prediction:
    """The prediction by execution."""
    precision = machine.precision(config.train.precision)
    traced = run_trace.run(config, found, machine, precision, architecture)
    by_phase = peaks.peaks(traced.events, machine)
    train = by_phase["train"]
    quantized = any(block.category == "quantized_weights" for block in traced.blocks.values())
    optimizer = config.train.optimizer_of(config.variant, machine.kind)
    assumptions = {
        "longest_micro_batch": found.as_text(),
        "precision": precision,
        "optimizer": optimizer,
        "layers_traced": traced.layers,
    }
    if machine.kind == "cuda":
        major, minor = machine.capability or (8, 0)
        assumptions["device"] = f"CUDA, compute capability {major}.{minor}"
        assumptions["attention_kernel"] = ", ".join(sorted(traced.kernels)) or config.model.attention
    else:
        assumptions["device"] = "CPU: live tensor bytes"
    if isinstance(config.variant, LoRA8bit):
        assumptions["outliers"] = "none: values decide which columns of an input bitsandbytes keeps in 16 bits"
    if config.train.callbacks:
        assumptions["callbacks"] = "not executed: what they keep in memory is not predicted"
    if config.train.torch_compile:
        assumptions["compile"] = "not modelled: compiled code needs less, since it fuses operators"
    if config.train.devices_per_run > 1:
        assumptions["devices"] = "each is predicted like a single one; DDP also keeps the gradients between steps"
    if found.of_seed is not None:
        assumptions[OF_SEED] = f"{found.of_seed}, whose run is shorter than one pass over the data"
    if traced.evaluation_fault:
        assumptions["evaluation"] = traced.evaluation_fault
    return Prediction(
        tier="trace",
        allocated_bytes=train.allocated,
        requested_bytes=train.requested,
        reserved_bytes=train.reserved,
        paged_bytes=sum(traced.paged_by_layer.values()),
        load_bytes=by_phase["load"].allocated,
        eval_bytes=by_phase["eval"].allocated if "eval" in by_phase and not traced.evaluation_fault else None,
        peak_at=traced.events[train.where].part,
        breakdown=peaks.breakdown(traced.events, traced.blocks, train, machine),
        relative_band=(0.015 if quantized else 0.005) if machine.kind == "cuda" else 0.01,
        assumptions=assumptions,
    )
