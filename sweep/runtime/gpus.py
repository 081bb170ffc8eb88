"""The GPUs of this machine by UUID: the name under which a GPU is leased, locked, bound, measured and recorded.

NVML describes them, so that this process creates no CUDA context. Places in a list are no names: CUDA numbers the
fastest GPU first, NVML numbers by the PCI bus.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweep.runtime import nvml
from sweep.runtime.visible_devices import VISIBLE, named

log = logging.getLogger(__name__)
_warn_once = cache(log.warning)
DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/dxg", "/dev/nvhost-gpu")  # Linux, Windows' subsystem for Linux, Jetson
_CUDA_SECONDS = 120  # time for PyTorch to list the GPUs of a large machine
_LIST_BY_CUDA = """
import json, torch
found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
print(json.dumps([[str(one.uuid), one.name, one.major, one.minor, one.total_memory] for one in found]))
"""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU, or a MIG slice of one.

    `id` is its UUID, as CUDA_VISIBLE_DEVICES and NVML take it: "GPU-…" or "MIG-…". `number` is its number in
    nvidia-smi, "0:1" for the second slice of GPU 0, and `whole_id` is the UUID of the GPU that a slice is part of. None
    is a figure that NVML does not report.
    """

    id: str
    number: str
    whole_id: str | None = None
    name: str = ""
    capability: tuple[int, int] | None = None
    capacity_bytes: int | None = None

    @property
    def kind(self) -> str:
        """Equal for GPUs whose runs can be compared. Some names stand for cards of two sizes."""
        size = "" if self.capacity_bytes is None else f", {self.capacity_bytes / 2**30:.0f} GiB"
        return f"{self.name}{size}"

    def __str__(self) -> str:
        return f"{self.number} ({self.kind})" if self.name else self.number


def visible() -> list[Gpu]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all. A GPU in MIG mode counts as its
    slices. Where NVML is not available, or cannot know what a number in CUDA_VISIBLE_DEVICES means, a process of its
    own asks CUDA."""
    names = named()
    if names == []:
        return []
    present = _by_nvml()
    if present is None:
        return _by_cuda(names) if _device_files() else []
    if names is None:
        return present
    numbers = any(name.isdigit() for name in names)
    if numbers and len({gpu.kind for gpu in present}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        by_id = {gpu.id: gpu for gpu in present}
        return [by_id.get(gpu.id, gpu) for gpu in _by_cuda(names)]
    found = [gpu for name in names for gpu in matching(name, present)]
    missing = [name for name in names if not matching(name, present)]
    if missing:
        log.warning("%s names %s, which this machine does not have", VISIBLE, ", ".join(missing))
    return found


def matching(name: str, gpus: list[Gpu]) -> list[Gpu]:
    """The GPUs that a person means by a number, by a UUID or by the beginning of a UUID. A GPU in MIG mode means all
    its slices."""
    if not name.startswith(("GPU-", "MIG-")):
        return [gpu for gpu in gpus if gpu.number == name or gpu.number.startswith(f"{name}:")]
    found = [gpu for gpu in gpus if gpu.id.startswith(name)]
    return found if len(found) == 1 else [gpu for gpu in gpus if gpu.whole_id == name]


def lost(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those that NVML listed before and does not list any more. A GPU falls off the bus after some hardware errors."""
    present = _by_nvml()
    return [] if present is None else [gpu for gpu in gpus if gpu not in present]


def torch_has_cuda() -> bool:
    """Whether the installed PyTorch is built for GPUs. This process need not import it."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    built = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return bool(built.get("cuda") or built.get("hip"))


def count_without_cuda() -> int:
    """About how many GPUs a process of this environment sees, at least 1 where CUDA sees one. Asks no CUDA driver."""
    names = named()
    if names == []:
        return 0
    with nvml.opened() as library:
        try:
            count = len(_device_files()) if library is None else library.nvmlDeviceGetCount()
        except library.NVMLError:
            count = len(_device_files())
    return count if names is None else min(count, len(names))


def _device_files() -> list[str]:
    return [file for pattern in DEVICE_FILES for file in glob.glob(pattern)]


def _by_nvml() -> list[Gpu] | None:
    """All GPUs in the order of nvidia-smi; None where NVML is not available. A GPU that NVML cannot read is left out:
    CUDA cannot use it either."""
    with nvml.opened() as library:
        if library is None:
            return None
        try:
            count = library.nvmlDeviceGetCount()
        except library.NVMLError:
            return None
        found = []
        for index in range(count):
            try:
                found += _with_slices(library, index)
            except library.NVMLError as error:
                _warn_once(f"NVML cannot read GPU {index}, which stays idle: {error}")
        return found


def _with_slices(library: Any, index: int) -> list[Gpu]:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    capability = tuple(library.nvmlDeviceGetCudaComputeCapability(handle))
    if not _is_in_mig_mode(library, handle):
        return [_described(library, handle, str(index), capability)]
    found = [
        replace(_described(library, one, f"{index}:{number}", capability), whole_id=library.nvmlDeviceGetUUID(handle))
        for number, one in _slices(library, handle)
    ]
    if not found:
        _warn_once(f"GPU {index} is in MIG mode and has no slice, so that CUDA cannot use it")
    return found


def _described(library: Any, handle: Any, number: str, capability: tuple[int, int]) -> Gpu:
    memory = nvml.memory(library, handle)
    return Gpu(
        id=library.nvmlDeviceGetUUID(handle),
        number=number,
        name=library.nvmlDeviceGetName(handle),
        capability=capability,
        capacity_bytes=memory.total_bytes if memory else None,
    )


def _is_in_mig_mode(library: Any, handle: Any) -> bool:
    try:
        return library.nvmlDeviceGetMigMode(handle)[0] == library.NVML_DEVICE_MIG_ENABLE
    except library.NVMLError:  # most GPUs have no such mode
        return False


def _slices(library: Any, handle: Any) -> Iterator[tuple[int, Any]]:
    """(number, handle) of each MIG slice. The numbers may have gaps."""
    for number in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield number, library.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except library.NVMLError_NotFound:
            continue


def _by_cuda(names: list[str] | None) -> list[Gpu]:
    """The GPUs that PyTorch sees in a process of its own, in CUDA's order: that of `names`, where there are any."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_BY_CUDA], capture_output=True, text=True, timeout=_CUDA_SECONDS, check=True
        )
        listed = json.loads(done.stdout)
        reason = done.stderr
    except subprocess.CalledProcessError as error:
        listed, reason = [], error.stderr
    except subprocess.TimeoutExpired:
        listed, reason = [], f"no answer in {_CUDA_SECONDS} seconds"
    if not listed:
        said = "".join([line for line in reason.splitlines() if line.strip()][-1:])
        log.warning("PyTorch sees no GPU, though this machine has %s: %s", ", ".join(_device_files()) or "one", said)
    found = []
    for index, (uuid, name, major, minor, total) in enumerate(listed):
        own = names[index] if names else str(index)
        by_uuid = f"GPU-{uuid}" if " MIG " not in name else str(index)  # CUDA may give the UUID of a slice's whole GPU
        identity = own if own.startswith("MIG-") else by_uuid
        found.append(Gpu(id=identity, number=own, name=name, capability=(major, minor), capacity_bytes=total))
    return found
