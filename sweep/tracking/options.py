"""The config group `tracking`: where runs are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

from annotated_types import Ge, MinLen


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """The MLflow store of runs."""

    uri: str
    """MLflow's tracking URI: an SQLite file, or an http server."""
    artifacts: str
    """Folder of the artifacts of a new SQLite store. A server has its own."""
    experiment: Annotated[str, MinLen(1)]
    """Name of the experiment in MLflow."""
    max_saved_weights_bytes: Annotated[int, Ge(0)] = 2**29
    """Largest checkpoint that a run saves, in bytes. 0 saves none, and then nothing can be exported."""
    also: tuple[Literal["jsonl", "tensorboard", "wandb"], ...] = ()
    """Copies of each run's metrics: `metrics.jsonl` and an event file in the run's folder, a run in W&B."""

    def faults(self) -> Iterator[tuple[str, str]]:
        for name in self.also:
            if name != "jsonl" and find_spec(name) is None:
                yield "also", f"has {name}, which is not installed (pip install {name}); jsonl needs no package"
