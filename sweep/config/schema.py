"""The typed schema of a run, and the one place that turns a composed config into objects.

`parse` reports every fault at once. It imports nothing heavy: components (`_target_`) live in modules that import torch
inside their methods only.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from omegaconf import DictConfig, OmegaConf

from sweep.config.builder import build
from sweep.core.errors import ConfigError, Fault
from sweep.core.record import is_memory
from sweep.meters import Meters
from sweep.models import Model
from sweep.tasks import Task
from sweep.tracking.options import Tracking
from sweep.training.options import Train
from sweep.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Study:
    """Which study a run belongs to, and the study's own rules. `trial` and `swept` are filled in by the sweeper.

    `learning_rate_multiplier` multiplies the variant's own learning rate: sweep it, and each variant gets the same
    number of rates around its own."""

    name: str | None = None
    trial: int | None = None
    swept: list[str] | None = None
    memory_metric: str = "max_memory_allocated"
    memory_budget_gib: Annotated[float, Gt(0)] | None = None
    score_threshold: Annotated[float, Gt(0), Le(1)] = 0.99
    replicates: Literal["all", "adaptive"] = "all"
    max_attempts: Annotated[int, Ge(1)] = 3
    learning_rate_multiplier: Annotated[float, Gt(0)] = 1.0
    predict_memory: bool = True
    launch_despite_prediction: bool = False

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
                "train.parallelism",
                "fsdp",
                f"is not for variant {self.variant.name}: {fault}, or train.parallelism=ddp",
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
