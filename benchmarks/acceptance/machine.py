"""Checks of the machine itself: the GPU, its driver, NVML, the fork server and leases. No training."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.acceptance.check import Bench, Findings
from sweep.launch import device_leases
from sweep.meters.other_processes import CONTEXT_BYTES
from sweep.processes import isolated_call


def seen(report: object = None) -> dict[str, Any]:
    """What a run's process sees of CUDA, and what a context costs there."""
    import bitsandbytes.cextension
    import torch

    from sweep.runtime import nvml

    count = torch.cuda.device_count()
    found: dict[str, Any] = {
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "bitsandbytes": type(bitsandbytes.cextension.lib).__name__,
        "forked_after_cuda_was_used": torch.cuda._is_in_bad_fork(),
    }
    if count:
        free, total = torch.cuda.mem_get_info()  # makes the context
        held = torch.ones(1 << 20, device="cuda")
        properties = torch.cuda.get_device_properties(0)
        used_by_nvml = nvml.used_bytes(0)
        found |= {
            "gpu": properties.name,
            "uuid": nvml.leased_uuids()[0],
            "capability": f"{properties.major}.{properties.minor}",
            "architectures_of_the_wheel": torch.cuda.get_arch_list(),
            "capacity_bytes": total,
            "free_at_start_bytes": free,
            "sum": float(held.sum()),
            "reserved_bytes": torch.cuda.memory_reserved(),
            "nvml_used_bytes": used_by_nvml,
        }
    return found


def fork_server(bench: Bench, found: Findings) -> None:
    """The server has used no CUDA, and its child, bound to the leased GPU, can."""
    first = device_leases.leases("auto")[0]
    isolated_call.call("benchmarks.acceptance.machine:seen", env=first.env)  # starts the server
    started = time.perf_counter()
    child = isolated_call.call("benchmarks.acceptance.machine:seen", env=first.env)
    found.figures |= {"call_seconds": time.perf_counter() - started, "child": child}
    method = isolated_call.training_server().method
    found.expect(method == "forkserver", f"runs start from the fork server: they start by {method}")
    found.expect(not child["forked_after_cuda_was_used"], "the server uses no CUDA before it forks")
    if bench.is_gpu:
        found.figures |= {key: child[key] for key in ("gpu", "capability", "cuda", "cudnn")}
        found.expect(child["gpus"] == 1, f"a run sees its GPU alone: it sees {child['gpus']}")
        found.expect(child["sum"] == float(1 << 20), f"a sum of ones on the GPU is 1,048,576: it is {child['sum']}")
        library = child["bitsandbytes"]
        found.expect(library.startswith("Cuda"), f"bitsandbytes loads its CUDA library: it loaded {library}")


def context(bench: Bench, found: Findings) -> None:
    """The memory of a process outside the allocator is at most what the predictions add for it."""
    bench.need_gpu("the size of a CUDA context")
    lease = device_leases.leases("auto")[0]
    idle = device_leases.bytes_in_use(lease.gpus) or 0
    child = isolated_call.call("benchmarks.acceptance.machine:seen", env=lease.env)
    found.expect(child["nvml_used_bytes"] is not None, "NVML states the memory in use on the GPU that PyTorch uses")
    if child["nvml_used_bytes"] is not None:
        size = child["nvml_used_bytes"] - child["reserved_bytes"] - idle
        found.figures |= {"context_bytes": size, "assumed_bytes": CONTEXT_BYTES}
        found.expect(size <= CONTEXT_BYTES, f"a context needs at most {CONTEXT_BYTES:,} bytes: it needs {size:,}")


def leases(bench: Bench, found: Findings) -> None:
    """`auto` leases every GPU of one kind, each by its UUID."""
    leased = device_leases.leases("auto")
    found.figures |= {"leases": len(leased), "gpus": bench.gpus, "names": [str(lease) for lease in leased]}
    if bench.is_gpu:
        found.expect(1 <= len(leased) <= bench.gpus, f"there are 1 to {bench.gpus} leases: there are {len(leased)}")
        names = [gpu.id for lease in leased for gpu in lease.gpus]
        found.expect(len(set(names)) == len(names), f"no GPU is leased twice: {names}")
        by_uuid = all(name.startswith(("GPU-", "MIG-")) for name in names)
        found.expect(by_uuid, f"GPUs are leased by UUID: {names}")
