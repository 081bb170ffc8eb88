"""The config of a comparison of adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge

from sweep.config.schema import parse_as
from sweep.core import preflight, program
from sweep.core.errors import ConfigError, Fault
from sweep.core.overrides import shell_override
from sweep.models import Model
from sweep.tasks import Task
from sweep.variants import Variant

ADAPTER_CONFIG = "adapter_config.json"
_MODEL = ("revision", "dtype", "attention", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class AdapterComparison:
    """The adapters to compare. `variant` gives the precision of the base. `weights` has one weight per adapter, to
    combine them."""

    model: Model
    """The base model."""
    task: Task
    """The task, with its data and metrics."""
    variant: Variant
    """How the base is held: qlora_r16 in 4 bits, lora8bit_r16 in 8 bits, others whole."""
    adapters: list[str]
    """Folders of adapters."""
    weights: list[float] | None = None
    """One weight for each adapter; adds the scores of their weighted combination."""
    combination_type: Literal[
        "linear", "svd", "cat", "ties", "ties_svd", "dare_linear", "dare_ties", "magnitude_prune"
    ] = "linear"
    """Method of PEFT's `add_weighted_adapter`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products."""
    max_length: Annotated[int, Ge(2)]
    """Longest prompt with response, in tokens."""
    batch_size: Annotated[int, Ge(1)]
    """Examples in one batch of evaluation."""
    out: str | None = None
    """Folder of the results by example and of the combination."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.weights is not None and len(self.weights) != len(self.adapters):
            yield "weights", f"must have one weight for each of the {len(self.adapters)} adapters"
        for folder in self.adapters:
            if (Path(folder) / "config.json").is_file():
                yield (
                    "adapters",
                    f"{folder} is a whole model: to score it, use {shell_override('base', folder)} 'adapters=[]'",
                )
            elif not Path(folder, ADAPTER_CONFIG).is_file():
                yield "adapters", f"{folder} has no {ADAPTER_CONFIG}: {program.command('export')} writes adapters"
        if self.out is not None:
            for fault in preflight.output_fault("out", self.out):
                yield fault.key, fault.message


def parse(plain: Mapping[str, Any]) -> AdapterComparison:
    """The composed config → AdapterComparison, or ConfigError with all faults. The base is the given one, or the one
    that the adapters name."""
    base = plain["base"] if plain["base"] is not None else _named_base(plain["adapters"]) or "unknown"
    model = {"_target_": "sweep.models.pretrained.Pretrained", "path": base, **{key: plain[key] for key in _MODEL}}
    rest = {key: value for key, value in plain.items() if key not in ("base", *_MODEL)}
    try:
        return parse_as(AdapterComparison, {**rest, "model": model})
    except ConfigError as error:
        keys = {"model.path": "base", **{f"model.{key}": key for key in _MODEL}}
        raise ConfigError([fault._replace(key=keys.get(fault.key, fault.key)) for fault in error.faults]) from error


def _named_base(adapters: Any) -> str | None:
    """The base that the adapters name; None if a folder is not an adapter, which is another fault."""
    folders = [str(folder) for folder in adapters] if isinstance(adapters, list) else []
    if any(not Path(folder, ADAPTER_CONFIG).is_file() for folder in folders):
        return None
    names: set[str] = set()
    for folder in folders:
        with suppress(OSError, ValueError, KeyError):
            names.add(str(json.loads(Path(folder, ADAPTER_CONFIG).read_text())["base_model_name_or_path"]))
    if len(names) != 1:
        found = f"the adapters name {', '.join(sorted(names))}" if names else "no adapter names one"
        raise ConfigError([Fault("base", "null", f"{found}: say which one to load, base=<Hub id or folder>")])
    return names.pop()
