"""A prediction of memory and the machine that it is for. Imports nothing but the standard library."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# Categories of `Prediction.breakdown`, in the order in which charts stack them.
CATEGORIES = (
    "frozen_weights",
    "trainable_weights",
    "quantized_weights",
    "quantization_state",
    "gradients",
    "optimizer_state",
    "activations",
    "logits_and_loss",
    "temporaries",
    "workspaces",
    "buffers_and_batch",
    "allocator_rounding",
)

OF_SEED = "seed"  # the assumption of a run that is shorter than one pass over its data: each seed uses other examples


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device that a run is predicted for.

    `capability` is CUDA's compute capability, (9, 0) for an H100: the attention kernel and the size of cuBLAS's
    workspace depend on it. `capacity_bytes` is the device's memory, None where it is not known.
    `cublas_workspace_config` is the environment variable of that name, which runs inherit from this process.
    """

    kind: Literal["cuda", "cpu"]
    capability: tuple[int, int] | None = None
    name: str = ""
    capacity_bytes: int | None = None
    cublas_workspace_config: str = field(default_factory=lambda: os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))

    def precision(self, name: str) -> str:
        """The precision that `sweep.runtime.precision.resolve` chooses on this machine."""
        if name != "auto":
            return name
        if self.kind == "cpu":
            return "fp32"
        return "bf16" if (self.capability or (8, 0)) >= (8, 0) else "fp16"

    @property
    def workspace_bytes(self) -> int:
        """cuBLAS's workspace for one handle and stream: 32 MiB on 9.x, 10.x and 12.x, else 8.125 MiB; or the sum over
        the pairs `:SIZE:COUNT`, in KiB, of CUBLAS_WORKSPACE_CONFIG (`getChosenWorkspaceSize` in CUDABlas.cpp). A step
        holds two: one for the thread of the forward, one for autograd's thread."""
        pairs = re.findall(r":(\d+):(\d+)", self.cublas_workspace_config)
        if pairs:
            return sum(int(size) * int(count) for size, count in pairs) * 1024
        return 32 * 2**20 if (self.capability or (8, 0))[0] in (9, 10, 12) else (2 * 4096 + 8 * 16) * 1024


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted memory of one run, in bytes.

    `allocated_bytes` is the peak of the train phase that the run's meter is expected to measure:
    `max_memory_allocated` on CUDA, live tensor bytes on the CPU. `requested_bytes` is the same peak before the
    allocator rounds and adds workspaces; `reserved_bytes` is what the allocator reserves from the device. `paged_bytes`
    is optimizer state in managed memory, which the allocator does not count. `load_bytes` and `eval_bytes` are the
    peaks of the other phases. None means not known.

    `breakdown` splits the peak of the train phase by purpose (names in CATEGORIES); it sums to `allocated_bytes`.
    `peak_at` is the part of the step that reaches the peak: "forward", "backward" or "optimizer". `relative_band` is
    the declared error: the measured value is expected within ± this share of `allocated_bytes`. `assumptions` holds, as
    text, what the prediction depends on (kernel, longest batch, …).
    """

    tier: Literal["trace", "formula"]
    allocated_bytes: int
    requested_bytes: int | None = None
    reserved_bytes: int | None = None
    paged_bytes: int = 0
    load_bytes: int | None = None
    eval_bytes: int | None = None
    peak_at: str
    breakdown: Mapping[str, int]
    relative_band: float
    assumptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(self.breakdown.values()) != self.allocated_bytes:
            raise ValueError(
                f"the breakdown sums to {sum(self.breakdown.values())} bytes, not to allocated_bytes = "
                f"{self.allocated_bytes}"
            )
        unknown = set(self.breakdown) - set(CATEGORIES)
        if unknown:
            raise ValueError(f"unknown categories in the breakdown: {', '.join(sorted(unknown))}")

    @property
    def peak_bytes(self) -> int:
        """The prediction of `peak_memory_bytes`: allocated and paged."""
        return self.allocated_bytes + self.paged_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and for the pipe between processes."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Unpredictable:
    """A run that no tier can predict; `reason` explains it to the user."""

    reason: str
