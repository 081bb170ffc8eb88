"""The rank of this process among the ranks of its run. A single process is rank 0 of 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def is_main() -> bool:
    """Whether this process evaluates, writes and reports."""
    return not joined() or distributed.get_rank() == 0


def total(values: list[float]) -> list[float]:
    """Each value summed over the ranks. Every rank must call this at the same point."""
    if not joined():
        return values
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return tensor.tolist()


def ranks() -> int:
    return distributed.get_world_size() if joined() else 1


def agreed(value: Any) -> Any:
    """The main rank's value, on every rank. Every rank must call this at the same point."""
    if not joined():
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
