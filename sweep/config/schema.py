"""The typed schema of a run, and the only place that turns a composed config into objects.

`parse` reports all faults together. It imports nothing heavy: modules of components (`_target_`) import torch inside
their methods only. The string below a field is its meaning in docs/configuration.md.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from omegaconf import DictConfig, OmegaConf

from sweep.config.builder import build
from sweep.core.errors import ConfigError, Fault
from sweep.core.measurements import PEAK_MEMORY_BYTES
from sweep.core.record import is_memory
from sweep.meters import Meters
from sweep.models import Model
from sweep.tasks import Task
from sweep.tracking.options import Tracking
from sweep.training.options import Train
from sweep.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Study:
    """The study that a run belongs to, and the study's own rules."""

    name: str | None = None
    """Name of the study. It is also the name of its folders and of its row in MLflow."""
    trial: int | None = None
    """Number of the run's trial in Optuna. The sweeper sets it."""
    swept: list[str] | None = None
    """Keys that the study varies. The sweeper sets them."""
    memory_metric: str = PEAK_MEMORY_BYTES
    """Memory measurement that the study minimises, in bytes."""
    memory_budget_gib: Annotated[float, Gt(0)] | None = None
    """Memory budget of a run in GiB. A setting that needs more violates a constraint."""
    score_threshold: Annotated[float, Ge(0.01), Le(1)] = 0.99
    """Share of the best score that a setting must reach to get more seeds (`replicates: adaptive`)."""
    replicates: Literal["all", "adaptive"] = "all"
    """`all`: every seed of every setting. `adaptive`: more seeds for settings in contention only."""
    max_attempts: Annotated[int, Ge(1)] = 3
    """How many times a run that crashes is started, the first time included."""
    learning_rate_multiplier: Annotated[float, Gt(0)] = 1.0
    """Factor of every variant's own learning rate. Sweep it to try equal factors for all."""
    predict_memory: bool = True
    """Whether memory is predicted, to order the runs of a study and to skip runs that cannot fit."""
    launch_despite_prediction: bool = False
    """Whether a run is launched although its prediction exceeds the device or the budget."""

    @property
    def memory_budget_bytes(self) -> float | None:
        return None if self.memory_budget_gib is None else self.memory_budget_gib * 2**30

    def faults(self) -> Iterator[tuple[str, str]]:
        if not is_memory(self.memory_metric):
            yield (
                "memory_metric",
                "is not a memory measurement; use peak_memory_bytes, max_memory_allocated, or memory/<phase>_…_bytes",
            )
        if self.name is None:
            return
        if not self.name.strip():
            yield "name", "is empty; a study needs a name"
        elif len(self.name.encode()) > 200 or set(self.name.split("/")) & {"", ".", ".."}:
            yield "name", "names the study's folders too: at most 200 bytes, and no empty part, . or .. between slashes"
        elif "'" in self.name and '"' in self.name:
            yield "name", "has both kinds of quotation mark, which MLflow cannot search for"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The complete config of one run."""

    model: Model
    """The base model."""
    task: Task
    """The task, with its data and metrics."""
    variant: Variant
    """The method that makes the base model trainable."""
    train: Train
    """How all variants train."""
    tracking: Tracking
    """Where runs are stored."""
    study: Study
    """The study that the run belongs to."""
    meters: Meters
    """Options of the meters."""
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]
    """Seed of new weights, batch order and dropout. The data split does not depend on it."""

    @property
    def base(self) -> Model:
        """The base model as the run loads it: in fp32 where all of it trains in fp32. A cast after loading would leave
        gaps in the device's memory."""
        in_fp32 = self.variant.trains_all and self.train.trained_weights == "fp32"
        return replace(self.model, dtype="fp32") if in_fp32 else self.model

    def faults_between(self) -> Iterator[Fault]:
        """Rules between groups."""
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
        if positions is not None and (self.train.max_length or 0) + extra > positions:
            with_extra = f"with the variant's {extra} virtual tokens " if extra else ""
            yield Fault(
                "train.max_length", str(self.train.max_length), f"{with_extra}exceeds the model's {positions} positions"
            )
        bits = self.model.quantized_bits
        if bits is not None and bits != self.variant.base_bits:
            preset = "qlora_r16" if bits == 4 else "lora8bit_r16"
            yield Fault(
                "variant",
                self.variant.name,
                f"trains on a base in {self.variant.base_bits} bits, and this checkpoint was published in {bits}; "
                f"use variant={preset} or the like, or the checkpoint in 16 bits",
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
        if self.train.label_smoothing and self.task.problem in ("number", "several labels"):
            what = "labels, not for a regression" if self.task.problem == "number" else "one label per example"
            yield Fault("train.label_smoothing", str(self.train.label_smoothing), f"is for {what}")
        if self.train.loss is not None:
            for message in self.train.loss.task_faults(self.task):
                yield Fault("train.loss", type(self.train.loss).__name__, message)
        if self.train.warmup_ratio and self.train.lr_scheduler_type == "constant":
            yield Fault(
                "train.lr_scheduler_type", "constant", "ignores train.warmup_ratio; use constant_with_warmup, or 0"
            )


def plain_config(composed: DictConfig) -> dict[str, Any]:
    """The application's config as resolved plain containers, without Hydra's own group.

    Raises:
        OmegaConfBaseException: for an interpolation without a target, or a missing mandatory value.
    """
    ours = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    container = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in container.items()}


def _unless_given(key: str, value: Any, *, _parent_: DictConfig) -> Any:
    """`${unless_given:epochs,250}`: null if the config has a value for `epochs` in the same group, else 250."""
    given = not OmegaConf.is_interpolation(_parent_, key) and _parent_.get(key) is not None
    return None if given else value


OmegaConf.register_new_resolver("unless_given", _unless_given, replace=True)
Configured = typing.TypeVar("Configured")


def parse(config: Mapping[str, Any]) -> RunConfig:
    """The `RunConfig` of a resolved config in plain containers.

    Raises:
        ConfigError: with all faults: unknown keys, wrong types, values out of range, rules between keys.
    """
    return parse_as(RunConfig, config)


def parse_as(cls: type[Configured], config: Mapping[str, Any]) -> Configured:
    """`parse` for another dataclass."""
    faults: list[Fault] = []
    parsed = build(cls, config, "", faults)
    if isinstance(parsed, RunConfig):
        faults.extend(parsed.faults_between())
    if faults:
        raise ConfigError(faults)
    return parsed
