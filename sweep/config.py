"""The typed schema of a run, and the one place that turns a composed config into objects.

`parse` reports every fault at once. It imports nothing heavy: components (`_target_`) live in modules that import torch
inside their methods only.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import DictConfig, OmegaConf

from sweep.errors import ConfigError, Fault
from sweep.meters import Meters
from sweep.models import Model
from sweep.record import is_memory
from sweep.schema import build
from sweep.tasks import Task
from sweep.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Train:
    """What every variant shares while it trains. All of it belongs to the conditions."""

    max_steps: Annotated[int, Ge(1)] | None = None
    epochs: Annotated[float, Gt(0)] | None = None
    micro_batch_size: Annotated[int, Ge(1)]
    gradient_accumulation_steps: Annotated[int, Ge(1)] = 1
    max_length: Annotated[int, Ge(2)]
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial"] = "cosine"
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.0
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
    adam_beta2: Annotated[float, Gt(0), Lt(1)] = 0.999
    weight_decay: Annotated[float, Ge(0)] = 0.0
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: bool = False
    group_by_length: bool = True
    eval_batch_size: Annotated[int, Ge(1)] = 64
    compile: bool = False
    liger: bool = False
    eval_steps: Annotated[int, Ge(1)] | None = None
    devices_per_run: Annotated[int, Ge(1)] = 1
    parallel: Literal["ddp", "fsdp"] = "ddp"

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.max_steps is None and self.epochs is None:
            yield "max_steps", "is missing; give it, or train.epochs"
        elif self.max_steps is not None and self.epochs is not None:
            yield "epochs", f"and max_steps = {self.max_steps} both say how long to train; set one of them to null"
        if self.parallel == "fsdp" and self.devices_per_run == 1:
            yield "parallel", "is fsdp, which splits a model over several devices: set train.devices_per_run too"
        if self.sharded and not self.optimizer.startswith("adamw_torch"):
            yield "optimizer", "is bitsandbytes', which knows no parameters in parts (fsdp); use adamw_torch_fused"
        if self.liger and self.label_smoothing:
            yield "label_smoothing", "needs the logits, which liger's fused loss does not keep; set one of them only"

    @property
    def sharded(self) -> bool:
        """Whether each device holds a part of the model, and not all of it."""
        return self.parallel == "fsdp" and self.devices_per_run > 1

    def with_steps(self, examples: int) -> Train:
        """The same with `max_steps` known: epochs are passes over the examples, the last batch of which is whole."""
        if self.epochs is None:
            return self
        return replace(self, epochs=None, max_steps=max(1, math.ceil(self.epochs * (examples // self.batch_size))))

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step, over all devices."""
        return self.micro_batch_size * self.gradient_accumulation_steps * self.devices_per_run


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are kept. The folder of artifacts counts for a new SQLite store only; a server has its own.

    What a run trained is kept with it where it takes at most `keep_weights_bytes`: an adapter does, the whole of a
    large model does not. 0 keeps nothing, and then nothing can be exported.
    """

    uri: str
    artifacts: str
    experiment: Annotated[str, MinLen(1)]
    keep_weights_bytes: Annotated[int, Ge(0)] = 2**29


@dataclass(frozen=True, kw_only=True)
class Study:
    """Which study a run belongs to, and the study's own rules. `trial` and `swept` are filled in by the sweeper.

    `rate_factor` multiplies the variant's own learning rate: sweep it, and each variant gets the same number of rates
    around its own.
    """

    name: str | None = None
    trial: int | None = None
    swept: list[str] | None = None
    memory_metric: str = "max_memory_allocated"
    memory_budget_gib: Annotated[float, Gt(0)] | None = None
    threshold: Annotated[float, Gt(0), Le(1)] = 0.99
    replicates: Literal["all", "adaptive"] = "all"
    max_attempts: Annotated[int, Ge(1)] = 3
    rate_factor: Annotated[float, Gt(0)] = 1.0
    predict: bool = True
    force: bool = False

    @property
    def memory_budget_bytes(self) -> float | None:
        return None if self.memory_budget_gib is None else self.memory_budget_gib * 2**30

    def faults(self) -> Iterator[tuple[str, str]]:
        if not is_memory(self.memory_metric):
            yield "memory_metric", "is no memory measurement: max_memory_allocated, or memory/<phase>_…_bytes"
        if self.name is None:
            return
        if not self.name.strip():
            yield "name", "is empty; a study needs a name"
        elif len(self.name.encode()) > 200 or set(self.name.split("/")) & {"", ".", ".."}:
            yield "name", "names the study's folders too: at most 200 bytes, and no empty part, . or .. between slashes"
        elif "'" in self.name and '"' in self.name:
            yield "name", "holds both kinds of quotation mark, which MLflow cannot search for"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, complete."""

    model: Model
    task: Task
    variant: Variant
    train: Train
    tracking: Tracking
    study: Study
    meters: Meters
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]

    def faults_between(self) -> Iterator[Fault]:
        """Rules that need more than one part."""
        size = self.task.data.train_size
        if size is not None and self.train.batch_size > size:
            yield Fault(
                "train.micro_batch_size",
                str(self.train.micro_batch_size),
                f"times gradient_accumulation_steps = {self.train.gradient_accumulation_steps} is a batch of "
                f"{self.train.batch_size}, larger than the {size} training examples; lower one of them",
            )
        positions = self.model.max_positions
        extra = self.variant.extra_positions
        if positions is not None and self.train.max_length + extra > positions:
            with_extra = f"with the variant's {extra} virtual tokens " if extra else ""
            yield Fault(
                "train.max_length", str(self.train.max_length), f"{with_extra}exceeds the model's {positions} positions"
            )
        fault = self.variant.sharding_fault
        if self.train.sharded and fault is not None:
            yield Fault(
                "train.parallel", "fsdp", f"is not for variant {self.variant.name}: {fault}, or train.parallel=ddp"
            )
        packing = getattr(self.task, "packing", False)
        if packing and self.model.attention == "flash_attention_2" and self.train.micro_batch_size > 1:
            yield Fault("task.packing", "true", "with flash_attention_2 needs micro_batch_size = 1; accumulate instead")
        if self.train.label_smoothing and any(metric.needs_numbers for metric in self.task.metrics.values()):
            yield Fault("train.label_smoothing", str(self.train.label_smoothing), "is for labels, not for a regression")
        if self.train.warmup_ratio and self.train.lr_scheduler_type == "constant":
            yield Fault(
                "train.lr_scheduler_type", "constant", "ignores train.warmup_ratio; use constant_with_warmup, or 0"
            )


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """Resolved plain containers of the application's config, without Hydra's own part.

    Raises:
        OmegaConfBaseException: for an interpolation that leads nowhere, or a mandatory value that was not given.
    """
    ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    container = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in container.items()}


Configured = typing.TypeVar("Configured")


def parse(config: Mapping[str, Any]) -> RunConfig:
    """A resolved config as plain containers → RunConfig.

    Raises:
        ConfigError: with every fault found: unknown keys, wrong types, values out of range, rules between keys.
    """
    return parse_as(RunConfig, config)


def parse_as(cls: type[Configured], config: Mapping[str, Any]) -> Configured:
    """The same for another dataclass than a run's."""
    faults: list[Fault] = []
    parsed = build(cls, config, "", faults)
    if isinstance(parsed, RunConfig):
        faults.extend(parsed.faults_between())
    if faults:
        raise ConfigError(faults)
    return parsed
