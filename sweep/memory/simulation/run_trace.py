"""One run, executed on fake tensors: loading, training and evaluating by the same code that a real run goes through."""

from __future__ import annotations

import copy
import dataclasses
import gc
from collections.abc import Sequence
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
from sweep.memory.workload import Facts, StandInTokenizer, example
from sweep.runtime.precision import autocast
from sweep.training.fit import fit

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweep.config.schema import RunConfig


@dataclass(frozen=True, kw_only=True)
class Trace:
    """All events of a run in order, the blocks that they speak of, and the attention kernels that ran.

    `evaluation_fault` is why evaluation is not among the events, or ""; `layers` how many were executed.
    """

    events: Sequence[Event]
    blocks: dict[int, Block]
    kernels: set[str]
    layers: str
    evaluation_fault: str = ""


def run(config: RunConfig, facts: Facts, machine: Machine, precision: str, architecture: PretrainedConfig) -> Trace:
    """Trace the run: by four of its layers where all are alike, else by all of them."""
    architecture = copy.deepcopy(architecture)
    for name, value in facts.task.model_arguments(facts.tokenizer).items():
        setattr(architecture, name, value)
    try:
        traced = execute(config, facts, machine, precision, fake_model.shallow(architecture))
        depth = architecture.num_hidden_layers
        events, blocks = layer_extrapolation.extend(traced.events, traced.blocks, depth)
    except layer_extrapolation.Irregular:
        return execute(config, facts, machine, precision, architecture)
    return dataclasses.replace(
        traced, events=events, blocks=blocks, layers=f"{layer_extrapolation.TRACED} of {depth}, which are alike"
    )


def execute(config: RunConfig, facts: Facts, machine: Machine, precision: str, architecture: PretrainedConfig) -> Trace:
    """Trace the run with every layer that `architecture` has."""
    log = EventLog(inner=machine.kind == "cuda")
    model = fake_model.build(config, architecture, precision, log)
    log.vocabulary = getattr(architecture.get_text_config(), "vocab_size", None)
    seen: set[str] = set()
    kernel = "flash" if config.model.attention == "flash_attention_2" else None
    with patches.machine(machine, log, padded=facts.padded, kernel=kernel, seen=seen) as device:
        fake_model.materialize(model, device, log)
        model.to = lambda *args, **kwargs: model  # it is there; and a fake parameter cannot be swapped
        watch(model, log)
        log.device_type = torch.device(device).type
        with log:
            train(model, config, facts, machine, precision)
            fault = evaluate(model, facts, device, precision, log)
        events = list(log.events)  # before the model goes
    return Trace(events=events, blocks=log.blocks, kernels=seen, layers="all", evaluation_fault=fault)


def train(model: nn.Module, config: RunConfig, facts: Facts, machine: Machine, precision: str) -> None:
    """Two optimizer steps of the longest micro-batch: the second has the optimizer's state, as all later ones."""
    accumulated = min(2, config.train.gradient_accumulation_steps)  # the second finds the gradients of the first
    steps = min(2, config.train.max_steps or 2)
    short = dataclasses.replace(
        config.train,
        max_steps=steps,
        epochs=None,
        gradient_accumulation_steps=accumulated,
        precision=precision,
        group_by_length=False,
        torch_compile=False,  # what the compiler fuses is not foretold: declared among the assumptions
    )
    fit(
        model,
        list(facts.rows) * (accumulated * steps),
        facts.task.collator(facts.tokenizer),
        short,
        learning_rate=config.variant.learning_rate,
        seed=0,
        optimizer=config.variant.optimizer(machine.kind),
        is_causal=facts.task.is_causal,
    )
    gc.collect()


def evaluate(model: nn.Module, facts: Facts, device: str, precision: str, log: EventLog) -> str:
    """The first batch of evaluation, which has the longest prompts. Returns why it could not be traced, or "".

    Of a generation, memory peaks as the prompt is read, or at the last token, where the cache is full. Both are
    executed: a prompt and one token, and then a prompt that all tokens but the last stand in already, and that one.
    """
    task = facts.task.without_data()
    tokens = getattr(task, "max_new_tokens", 1)
    passes = [(facts.prompt_length, [EVALUATION] * min(2, tokens))]
    if tokens > 2 and task.task_type == "CAUSAL_LM":
        passes.append((facts.prompt_length + tokens - 2, [PROMPT, EVALUATION]))
        task = dataclasses.replace(task, max_new_tokens=2)
    tokenizer, size = StandInTokenizer(), facts.prompt_batch_size
    model.eval()
    for length, parts in passes:
        log.evaluating = list(parts)
        log.enter(parts[0])  # an encoder runs before the first forward of the whole model
        try:
            with autocast(precision, torch.device(device).type):
                prompts = [example(length, length + 1)] * size
                task.evaluate(model, tokenizer, prompts, size, metered=lambda _: nullcontext())
        except _Enough:
            continue
        except Exception as error:  # noqa: BLE001  what is known of training stands
            if log.evaluating:
                return f"could not be executed on fake tensors ({type(error).__name__}: {first_line(error)})"
            # All forwards were there; what follows reads their values.
    return ""


class _Enough(BaseException):
    """Evaluation has run as many forwards as are wanted; what ends a generation is values, which there are none of."""


def watch(model: nn.Module, log: EventLog) -> None:
    """Hooks that tell the log which part of the step, and which layer, the program is in."""
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
    """The gradient of a layer's output arrives as its backward begins."""
    tensors = output if isinstance(output, tuple | list) else [output]
    first = next((tensor for tensor in tensors if isinstance(tensor, torch.Tensor)), None)
    if first is not None and first.requires_grad:
        first.register_hook(lambda _: setattr(log, "layer", number) if log.part == BACKWARD else None)
