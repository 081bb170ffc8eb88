"""Two kinds of Hydra launchers behind one interface: those that run one job at a time, and those that run batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from hydra.plugins.launcher import Launcher

from sweep.launch.device_pool import Finished


@runtime_checkable
class StreamingLauncher(Protocol):
    """A launcher that takes one job at a time, so that a free device never waits for a batch."""

    def open_pool(self, slots: int | None, devices_per_run: int, with_configs: int | None) -> Any:
        """A context manager with the methods and properties of `BatchLauncher`.

        Args:
            slots: Jobs at the same time, if the machine has no GPU and the launcher's config gives no number.
            devices_per_run: GPUs that each job needs.
            with_configs: Jobs whose returned value includes their configs; None for all jobs.
        """
        ...


class BatchLauncher:
    """Hydra's own launchers (basic, joblib, submitit): collects up to `size` jobs, launches them together, and waits
    for the slowest."""

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

    def __enter__(self) -> BatchLauncher:
        return self

    def __exit__(self, *exception: Any) -> None:
        return
