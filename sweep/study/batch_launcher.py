"""Hydra's own launchers, which run batches, behind the interface of `sweep.launch.job_pool.JobPool`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.launcher import Launcher

from sweep.launch.device_pool import Finished


class BatchLauncher:
    """For basic, joblib and submitit: collects up to `size` jobs, launches them together, and waits for the slowest."""

    def __init__(self, launcher: Launcher, size: int, name: str):
        self.places = f"hydra/launcher={name}, up to {size} at a time"
        self._launcher = launcher
        self._size = size
        self._queue: list[tuple[Any, list[str], int]] = []

    @property
    def free(self) -> int:
        return self._size - len(self._queue)

    @property
    def running(self) -> int:
        return len(self._queue)

    def submit(self, tag: Any, overrides: Sequence[str], number: int) -> None:
        self._queue.append((tag, list(overrides), number))

    def wait(self) -> list[Finished]:
        queue, self._queue = self._queue, []
        returns = self._launcher.launch([overrides for _, overrides, _ in queue], initial_job_idx=queue[0][2])
        return [Finished(tag, returned, None) for (tag, _, _), returned in zip(queue, returns, strict=True)]
