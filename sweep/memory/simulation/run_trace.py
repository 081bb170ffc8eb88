"""The execution of a run on fake tensors: the code of a real run loads, trains and evaluates."""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sweep.core.errors import first_line
from sweep.memory.prediction import Machine
from sweep.memory.simulation import fake_model, layer_extrapolation, patches
from sweep.memory.simulation.allocation_log import BACKWARD, EVALUATION, FORWARD, PROMPT, Block, Event, EventLog
from sweep.memory.workload import StandInTokenizer, Workload, example
from sweep.runtime.precision import autocast
from sweep.training.fit import fit

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweep.config.schema import RunConfig


@dataclass(frozen=True, kw_only=True)
class Trace:
    """All events of a run in order, their blocks, and the attention kernels that ran.

    `evaluation_fault` is the reason why the events lack evaluation, or ""; `layers` states how many layers were
    executed; `paged_by_layer` is the optimizer's state in managed memory, in bytes, which is not among the events."""

    events: Sequence[Event]
    blocks: dict[int, Block]
    kernels: set[str]
    layers: str
    paged_by_layer: Mapping[int, int]
    evaluation_fault: str = ""


def run(
    config: RunConfig, workload: Workload, machine: Machine, precision: str, architecture: PretrainedConfig
) -> Trace:
    """Trace the run with four layers where all layers are alike, else with all of them."""
    architecture = copy.deepcopy(architecture)
    for name, value in workload.task.model_arguments(workload.tokenizer).items():
        setattr(architecture, name, value)
    try:
        traced = execute(config, workload, machine, precision, fake_model.shallow(architecture))
        depth = architecture.num_hidden_layers
        events, blocks = layer_extrapolation.extend(traced.events, traced.blocks, depth)
    except layer_extrapolation.Irregular:
        return execute(config, workload, machine, precision, architecture)
    return dataclasses.replace(
        traced,
        events=events,
        blocks=blocks,
        layers=f"{layer_extrapolation.TRACED} of {depth}, which are alike",
        paged_by_layer=layer_extrapolation.extend_sums(traced.paged_by_layer, depth),
    )


def execute(
    config: RunConfig, workload: Workload, machine: Machine, precision: str, architecture: PretrainedConfig
) -> Trace:
    """Trace the run with every layer that `architecture` has."""
    log = EventLog(inner=machine.kind == "cuda")
    model = fake_model.build(config, architecture, precision, log)
    log.vocabulary = getattr(architecture.get_text_config(), "vocab_size", None)
    seen: set[str] = set()
    kernel = "flash" if config.model.attention == "flash_attention_2" else None
    with patches.machine(machine, log, padded=workload.padded, kernel=kernel, seen=seen) as device:
        fake_model.materialize(model, device, log)
        model.to = lambda *args, **kwargs: model  # it is on its device, and a fake parameter cannot be moved
        watch(model, log)
        log.device_type = torch.device(device).type
        with log:
            train(model, config, workload, machine, precision)
            fault = evaluate(model, workload, device, precision, log)
        events = list(log.events)  # before the model is freed
    return Trace(
        events=events, blocks=log.blocks, kernels=seen, layers="all", paged_by_layer=log.paged, evaluation_fault=fault
    )


def train(model: nn.Module, config: RunConfig, workload: Workload, machine: Machine, precision: str) -> None:
    """Two optimizer steps of the longest micro-batch. The second has the optimizer's state, as all later ones have."""
    accumulated = min(2, config.train.gradient_accumulation_steps)  # the second adds to the gradients of the first
    steps = min(2, config.train.max_steps or 2)
    short = dataclasses.replace(
        config.train.with_loss(workload.task, workload.rows),
        max_steps=steps,
        epochs=None,
        gradient_accumulation_steps=accumulated,
        precision=precision,
        group_by_length=False,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        callbacks=[],  # what they hold is not predicted: an assumption states so
        early_stopping_patience=None,
        torch_compile=False,  # the compiler's fusion is not predicted: an assumption states so
    )
    fit(
        model,
        list(workload.rows) * (accumulated * steps),
        workload.task.collator(workload.tokenizer),
        short,
        learning_rate=config.variant.learning_rate,
        seed=0,
        optimizer=config.variant.optimizer(machine.kind),
        is_causal=workload.task.is_causal,
    )
    gc.collect()


def evaluate(model: nn.Module, workload: Workload, device: str, precision: str, log: EventLog) -> str:
    """The first batch of evaluation, which has the longest prompts. Returns why it could not be traced, or "".

    The memory of a generation peaks while the prompt is read, or at the last token, where the cache is full. Two passes
    execute both: a prompt with one more token, then a prompt that holds all tokens but the last, with that one.
    """
    task = workload.task.without_data()
    tokens = getattr(task, "max_new_tokens", 1)
    passes = [(workload.prompt_length, [EVALUATION] * min(2, tokens))]
    if tokens > 2 and task.task_type == "CAUSAL_LM":
        passes.append((workload.prompt_length + tokens - 2, [PROMPT, EVALUATION]))
        task = dataclasses.replace(task, max_new_tokens=2)
    tokenizer, size = StandInTokenizer(), workload.prompt_batch_size
    model.eval()
    for length, parts in passes:
        log.evaluating = list(parts)
        log.enter(parts[0])  # an encoder runs before the first forward of the model
        try:
            with autocast(precision, torch.device(device).type):
                prompts = [example(length, length + 1)] * size
                task.evaluate(model, tokenizer, prompts, size, metered=lambda _: nullcontext())
        except _Enough:
            continue
        except Exception as error:  # noqa: BLE001  the figures of training stay valid
            if log.evaluating:
                return f"could not be executed on fake tensors ({type(error).__name__}: {first_line(error)})"
            # All forwards have run; the code after them reads values.
    return ""


class _Enough(BaseException):
    """Ends an evaluation after the wanted number of forwards: a generation ends by values, and fake tensors have
    none."""


def watch(model: nn.Module, log: EventLog) -> None:
    """Hooks that set the current part of the step and the current layer in the log."""
    base = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    base.register_forward_pre_hook(lambda *_: log.enter(FORWARD if torch.is_grad_enabled() else _next(log.evaluating)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: log.add(p.grad, "gradients"))
    for number, layer in enumerate(_layers(model)):
        layer.register_forward_pre_hook(lambda *_, number=number: setattr(log, "layer", number))
        layer.register_forward_hook(lambda _, __, output, number=number: _watch_backward(output, number, log))


def _next(parts: list[str]) -> str:
    if not parts:
        raise _Enough
    return parts.pop(0)


def _layers(model: nn.Module) -> Sequence[nn.Module]:
    """The repeated blocks of the model: its longest list of modules of one class."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [found for found in lists if len({type(item) for item in found}) == 1]
    return max(alike, key=len, default=[])


def _watch_backward(output: Any, number: int, log: EventLog) -> None:
    """Set the layer in backward: the gradient of a layer's output arrives at the start of the layer's backward."""
    tensors = output if isinstance(output, tuple | list) else [output]
    first = next((tensor for tensor in tensors if isinstance(tensor, torch.Tensor)), None)
    if first is not None and first.requires_grad:
        first.register_hook(lambda _: setattr(log, "layer", number) if log.part == BACKWARD else None)
