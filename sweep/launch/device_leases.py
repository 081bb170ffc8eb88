"""The devices of runs, and the memory in use on them. It uses NVML, so this process creates no CUDA context."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweep.core.errors import UserError
from sweep.runtime import nvml

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
_IDLE_BYTES = 1 << 30  # more than the driver itself keeps on a device without processes


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The devices of one run, by their names in CUDA_VISIBLE_DEVICES; none if it runs on the CPU."""

    devices: tuple[str, ...] = ()

    @property
    def env(self) -> dict[str, str]:
        """The environment of the run's process, set before it uses CUDA."""
        return {VISIBLE: ",".join(self.devices)} if self.devices else {}

    def __str__(self) -> str:
        return "GPU " + "+".join(self.devices) if self.devices else "CPU"


def visible() -> list[str]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all GPUs of NVML."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    with nvml.opened() as library:
        return [str(i) for i in range(library.nvmlDeviceGetCount())] if library is not None else []


def leases(devices: Any = "auto", slots: int | None = None, devices_per_run: int = 1) -> list[Lease]:
    """One lease per run that can run at a time: on `devices` (a list, or "auto" for all visible ones), or on `slots` of
    a machine without a GPU. UserError if a named device does not exist, or if there are too few for a run."""
    known = visible()
    wanted = known if devices in ("auto", None) else [str(device) for device in devices]
    unknown = [device for device in wanted if known and device not in known]
    if unknown or (wanted and not known):
        raise UserError(
            f"hydra.launcher.devices = {', '.join(wanted)}: this machine shows "
            f"{'the GPUs ' + ', '.join(known) if known else 'no GPU'}; name others, or auto"
        )
    if not wanted:
        return [Lease()] * (slots or 1)  # several ranks of a run share the CPU
    if len(wanted) < devices_per_run:
        raise UserError(
            f"devices_per_run = {devices_per_run} (train or hydra.launcher), but only {len(wanted)} GPUs are there: "
            f"{', '.join(wanted)}"
        )
    used = len(wanted) - len(wanted) % devices_per_run
    if wanted[used:]:
        log.warning("GPU %s stays idle: %d do not divide by %d", ", ".join(wanted[used:]), len(wanted), devices_per_run)
    return [Lease(devices=tuple(wanted[i : i + devices_per_run])) for i in range(0, used, devices_per_run)]


def bytes_in_use(devices: Sequence[str]) -> int | None:
    """Bytes that other processes hold on these devices before a run starts. 0 if it is the memory of an idle driver;
    None if NVML does not report it."""
    with nvml.opened() as library:
        if library is None or not devices:
            return None
        by_index, by_uuid = library.nvmlDeviceGetHandleByIndex, library.nvmlDeviceGetHandleByUUID
        try:
            handles = [by_index(int(name)) if name.isdigit() else by_uuid(name.encode()) for name in devices]
            used = sum(library.nvmlDeviceGetMemoryInfo(handle).used for handle in handles)
        except library.NVMLError:
            return None
    return used if used > _IDLE_BYTES * len(devices) else 0
