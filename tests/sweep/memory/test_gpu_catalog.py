"""The GPU of this machine that a plan is made for."""

from __future__ import annotations

import fake_nvml
import pytest
from fake_nvml import MIB, FakeGpu, a100_in_slices, gb10, gtx_1660, rtx_4090

from sweep.launch.device_leases import of_one_kind
from sweep.memory import Machine, gpu_catalog
from sweep.memory.gpu_catalog import Card
from sweep.runtime import gpus


@pytest.mark.parametrize(
    ("machine", "capability", "card"),
    [
        ([gtx_1660(), rtx_4090()], (8, 9), Card("24", "here: NVIDIA GeForce RTX 4090", 24564 * MIB)),
        ([a100_in_slices(1)], (8, 0), Card("5", "here: NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864 * MIB)),
        ([gb10()], (12, 1), None),  # NVML does not report its memory
    ],
)
def test_the_card_is_the_one_that_runs_would_use(
    machine: list[FakeGpu], capability: tuple[int, int], card: Card | None, monkeypatch: pytest.MonkeyPatch
):
    fake_nvml.install(monkeypatch, *machine)
    first = of_one_kind(gpus.visible())[0]
    assert gpu_catalog.card_of(first) == card
    found = gpu_catalog.machine_of(first)
    assert found == Machine(
        kind="cuda", capability=capability, name=first.name, capacity_bytes=card.capacity_bytes if card else None
    )
