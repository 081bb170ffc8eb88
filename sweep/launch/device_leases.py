"""The GPUs of each run of this process. Nothing here creates a CUDA context."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweep.core.errors import UserError
from sweep.runtime import gpus as machine
from sweep.runtime import nvml
from sweep.runtime.gpus import Gpu
from sweep.runtime.visible_devices import VISIBLE

log = logging.getLogger(__name__)
_IDLE_BYTES = 1 << 30  # more than the driver itself keeps on a device without processes
_OPTION = "hydra.launcher.devices"


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The GPUs of one run; none if it runs on the CPU. A run waits until no other run uses them, unless the lease is
    `shared`."""

    gpus: tuple[Gpu, ...] = ()
    shared: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The environment of the run's process, set before it uses CUDA. A run on the CPU sees no GPU: the Trainer
        would use one."""
        return {VISIBLE: ",".join(gpu.id for gpu in self.gpus)}

    def first(self, count: int) -> Lease:
        return replace(self, gpus=self.gpus[:count])

    def __str__(self) -> str:
        return "GPU " + "+".join(gpu.number for gpu in self.gpus) if self.gpus else "CPU"


def leases(
    devices: Any = "auto", slots: int | None = None, devices_per_run: int = 1, share_devices: bool = False
) -> list[Lease]:
    """One lease per run that can run at a time: on `devices` (a list, or "auto"), or on `slots` of a machine without a
    GPU. All GPUs are of one kind, since the kind is a condition of a study. UserError if a named device does not exist,
    if devices are of different kinds, or if there are too few for a run."""
    present = _usable()
    if devices in ("auto", None):
        chosen = of_one_kind(present, devices_per_run)
    else:
        named = devices.split(",") if isinstance(devices, str) else [str(device) for device in devices]
        chosen = _named(named, present, share_devices)
    if not chosen:
        return [Lease()] * (slots or 1)  # several ranks of a run share the CPU
    if len(chosen) < devices_per_run:
        raise UserError(
            f"devices_per_run = {devices_per_run} (train or hydra.launcher), but only {len(chosen)} GPUs of one kind "
            f"are there: {_listed(chosen)}"
        )
    used = len(chosen) - len(chosen) % devices_per_run
    if chosen[used:]:
        log.warning("GPU %s stays idle: %d do not divide by %d", _listed(chosen[used:]), len(chosen), devices_per_run)
    return [
        Lease(gpus=tuple(chosen[i : i + devices_per_run]), shared=share_devices)
        for i in range(0, used, devices_per_run)
    ]


def of_one_kind(gpus: Sequence[Gpu], devices_per_run: int = 1) -> list[Gpu]:
    """The GPUs of the kind with the most memory, among the kinds that have enough for a run. The others stay idle, as
    the card of a display does."""
    kinds: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault(gpu.kind, []).append(gpu)
    if not kinds:
        return []

    def use(same: list[Gpu]) -> tuple[Any, ...]:
        return len(same) >= devices_per_run, same[0].capacity_bytes or 0, same[0].capability or (0, 0), len(same)

    chosen = max(kinds.values(), key=use)
    idle = [gpu for gpu in gpus if gpu not in chosen]
    if idle:
        log.warning(
            "GPU %s stays idle: the runs of a study need GPUs of one kind, and use %s; %s=[…] names others",
            _listed(idle), _listed(chosen), _OPTION,
        )  # fmt: skip
    return chosen


def bytes_in_use(gpus: Sequence[Gpu]) -> int | None:
    """Bytes that other processes hold on these GPUs before a run starts. 0 if it is the memory of an idle driver; None
    if NVML does not report it."""
    with nvml.opened() as library:
        if library is None or not gpus:
            return None
        try:
            found = [nvml.memory(library, library.nvmlDeviceGetHandleByUUID(gpu.id)) for gpu in gpus]
        except library.NVMLError:
            return None
    used = [memory.used_bytes for memory in found if memory is not None]
    if len(used) < len(gpus):
        return None
    return sum(used) if sum(used) > _IDLE_BYTES * len(gpus) else 0


def _usable() -> list[Gpu]:
    present = machine.visible()
    if present and not machine.torch_has_cuda():
        log.warning(
            "Runs use the CPU and not GPU %s: the installed PyTorch is built for the CPU only. To use the GPU: pip "
            "install --force-reinstall torch (see pytorch.org/get-started/locally)",
            _listed(present),
        )
        return []
    return present


def _named(names: Sequence[str], present: list[Gpu], share_devices: bool) -> list[Gpu]:
    """The GPUs that the user names."""
    given = f"{_OPTION} = {', '.join(names)}"
    chosen: list[Gpu] = []
    for name in names:
        found = machine.matching(name.strip(), present)
        if not found:
            shows = f"the GPUs {_listed(present)}" if present else "no GPU"
            raise UserError(f"{given}: this machine shows {shows}; name numbers of nvidia-smi or UUIDs, or auto")
        chosen += found
    if len(set(chosen)) < len(chosen) and not share_devices:
        raise UserError(
            f"{given} names a GPU twice: runs share a GPU only with hydra.launcher.share_devices=true, and then "
            "disturb each other's time, energy and memory"
        )
    if len({gpu.kind for gpu in chosen}) > 1:
        raise UserError(
            f"{given} are GPUs of different kinds: {_listed(chosen)}. The kind is a condition of a study, since memory "
            "and time depend on it; name GPUs of one kind"
        )
    return chosen


def _listed(gpus: Sequence[Gpu]) -> str:
    return ", ".join(map(str, gpus))
