"""Figures of a log of allocations."""

from __future__ import annotations

import torch

from sweep.memory.prediction import Machine
from sweep.memory.simulation.allocation_log import EventLog
from sweep.memory.simulation.peaks import levels

MIB = 2**20


def test_weights_share_the_memory_that_loading_reserves_first():
    """transformers allocates the size of the model at once on a GPU; on the CPU it does not."""
    for kind, reserved in (("cuda", 60 * MIB), ("cpu", None)):
        log = EventLog(inner=kind == "cuda")
        log.reserve(60 * MIB, per_layer_bytes=0)
        weights = [torch.empty(15 * MIB, dtype=torch.uint8, device="meta") for _ in range(4)]
        for weight in weights:
            log.add(weight, "frozen_weights")
        found = list(levels(log.events, Machine(kind=kind, capability=(8, 0))))
        assert found[-1].allocated == 60 * MIB
        assert found[-1].reserved == reserved
