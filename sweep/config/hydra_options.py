"""The schema of `hydra.sweeper` and `hydra.launcher`. hydra_plugins has the meaning of each key: Hydra's own schema has
no ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from omegaconf import DictConfig, ListConfig, OmegaConf

from sweep.config.builder import build
from sweep.core.errors import ConfigError, Fault


@dataclass(frozen=True, kw_only=True)
class SweeperOptions:
    """`hydra.sweeper`."""

    sampler: Any = None
    direction: Any = None
    storage: Any = None
    study_name: str | None = None
    n_trials: Annotated[int, Ge(0)] | None = None
    n_jobs: Annotated[int, Ge(1)] = 1
    max_failure_rate: Annotated[float, Ge(0), Le(1)] | None = None
    pruner: Any = None
    params: dict[str, Any] | None = None
    search_space: dict[str, Any] | None = None
    conditional_on: dict[str, Any] | None = None
    custom_search_space: str | None = None


@dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """`hydra.launcher` of `hydra/launcher=paretune`."""

    devices: Any = "auto"
    share_devices: bool = False
    devices_per_run: Annotated[int, Ge(1)] = 1
    slots: Annotated[int, Ge(1)] | None = None


def sweeper_options(node: Mapping[str, Any]) -> SweeperOptions:
    """The options of a study. ConfigError with all faults."""
    return _parsed(SweeperOptions, "hydra.sweeper", node)


def launcher_options(node: Mapping[str, Any]) -> LauncherOptions:
    """The options of the device pool. ConfigError with all faults."""
    return _parsed(LauncherOptions, "hydra.launcher", node)


def faults(composed: DictConfig) -> Iterator[Fault]:
    """The faults of a multirun's own options. Other sweepers and launchers check their options themselves."""
    for key, parse in (("sweeper", sweeper_options), ("launcher", launcher_options)):
        node = composed.hydra[key]
        if not str(node.get("_target_")).startswith("hydra_plugins.paretune."):
            continue
        for name, value in (OmegaConf.to_container(node, resolve=False).get("params") or {}).items():
            if "${hydra:" in str(value):
                message = "is known in a job only; give an absolute key, such as ${hydra.job.name}"
                yield Fault(f"hydra.{key}.params.{name}", str(value), message)
        try:
            parse(node)
        except ConfigError as error:
            yield from error.faults


def _parsed(cls: type, key: str, node: Mapping[str, Any]) -> Any:
    """Keys with an underscore are Hydra's. An object that Hydra has built already stays as it is."""
    values = {str(name): _plain(value) for name, value in node.items() if not str(name).startswith("_")}
    found: list[Fault] = []
    built = build(cls, values, key, found)
    if found:
        raise ConfigError(found)
    return built


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
