"""Which GPUs the runs of a study lease, on machines that this one is not."""

from __future__ import annotations

import fake_nvml
import pytest
from fake_nvml import MIB, FakeGpu, a100_in_slices, gb10, gtx_1660, h100, rtx_4090, t4, uuid_of

from sweep.core.errors import UserError
from sweep.launch.device_leases import Lease, bytes_in_use, leases
from sweep.runtime import gpus


def numbers(found: list[Lease]) -> list[str]:
    return [str(lease) for lease in found]


@pytest.mark.parametrize(
    ("machine", "visible", "leased"),
    [
        ([gtx_1660(), rtx_4090()], None, ["GPU 1"]),  # the card of the display stays idle
        ([rtx_4090(), gtx_1660()], None, ["GPU 0"]),
        ([h100() for _ in range(8)], "2,3", ["GPU 2", "GPU 3"]),
        ([t4(), t4(), h100()], None, ["GPU 2"]),
        ([gb10()], None, ["GPU 0"]),
        ([a100_in_slices(2)], None, ["GPU 0:1", "GPU 0:2"]),
        ([h100()], "", ["CPU"]),
        ([h100()], "NoDevFiles", ["CPU"]),
        ([], None, ["CPU"]),
    ],
)
def test_auto_leases_gpus_of_one_kind(
    machine: list[FakeGpu], visible: str | None, leased: list[str], monkeypatch: pytest.MonkeyPatch
):
    fake_nvml.install(monkeypatch, *machine, visible=visible)
    assert numbers(leases()) == leased


def test_what_stays_idle_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    fake_nvml.install(monkeypatch, gtx_1660(), rtx_4090())
    leases()
    assert "GPU 0 (NVIDIA GeForce GTX 1660, 6 GiB) stays idle" in caplog.text
    fake_nvml.install(monkeypatch, *(h100() for _ in range(3)))
    assert numbers(leases(devices_per_run=2)) == ["GPU 0+1"]
    assert "GPU 2 (NVIDIA H100 80GB HBM3, 80 GiB) stays idle: 3 do not divide by 2" in caplog.text


def test_a_run_on_two_gpus_gets_the_kind_that_has_two(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, t4(), t4(), h100())
    assert numbers(leases(devices_per_run=2)) == ["GPU 0+1"]
    with pytest.raises(UserError, match="devices_per_run = 3"):
        leases(devices_per_run=3)


def test_a_name_that_stands_for_cards_of_two_sizes_is_two_kinds(monkeypatch: pytest.MonkeyPatch):
    sizes = [FakeGpu("NVIDIA GeForce RTX 3060", (8, 6), mib) for mib in (8192, 12288)]
    fake_nvml.install(monkeypatch, *sizes)
    assert numbers(leases()) == ["GPU 1"]


@pytest.mark.parametrize("devices", [[1, 3], ["1", "3"], "1,3", [uuid_of(1), "GPU-00000003"]])
def test_devices_are_named_by_number_or_uuid(devices: object, monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, *(h100() for _ in range(4)))
    found = leases(devices)
    assert [lease.env for lease in found] == [
        {"CUDA_VISIBLE_DEVICES": uuid_of(1)},
        {"CUDA_VISIBLE_DEVICES": uuid_of(3)},
    ]


def test_slices_are_named_by_place_or_uuid(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, a100_in_slices(3), t4())
    assert numbers(leases(["0:2"])) == numbers(leases(["MIG-00000002-aaaa"])) == ["GPU 0:2"]
    assert leases(["0:2"])[0].env == {"CUDA_VISIBLE_DEVICES": "MIG-00000002-aaaa"}
    assert numbers(leases([0])) == ["GPU 0:1", "GPU 0:2", "GPU 0:3"]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([0, 1], "different kinds: 0 .NVIDIA GeForce GTX 1660, 6 GiB., 1 .NVIDIA GeForce RTX 4090, 24 GiB."),
        ([7], "devices = 7: this machine shows the GPUs 0 .NVIDIA GeForce GTX 1660"),
        ([1, 1], "names a GPU twice"),
    ],
)
def test_devices_that_cannot_be_leased_are_refused(devices: list[int], message: str, monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, gtx_1660(), rtx_4090())
    with pytest.raises(UserError, match=message):
        leases(devices)


def test_a_gpu_named_on_a_machine_without_one_is_refused(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch)
    with pytest.raises(UserError, match="this machine shows no GPU"):
        leases([0])


def test_a_gpu_may_be_shared_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, h100())
    assert leases([0, 0], share_devices=True) == [Lease(gpus=tuple(gpus.visible()), shared=True)] * 2


def test_a_pytorch_for_the_cpu_uses_the_cpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    fake_nvml.install(monkeypatch, h100())
    monkeypatch.setattr(gpus, "torch_has_cuda", lambda: False)
    assert numbers(leases(slots=2)) == ["CPU", "CPU"]
    assert "the installed PyTorch is built for the CPU only" in caplog.text
    with pytest.raises(UserError, match="no GPU"):
        leases([0])


def test_a_run_on_the_cpu_sees_no_gpu():
    assert Lease().env == {"CUDA_VISIBLE_DEVICES": ""}


def test_memory_of_other_users_is_that_of_the_leased_gpu(monkeypatch: pytest.MonkeyPatch):
    """Found by UUID: on a mixed machine, CUDA's order is not NVML's."""
    fake_nvml.install(monkeypatch, gtx_1660(), rtx_4090(used_mib=9000))
    assert bytes_in_use(leases([1])[0].gpus) == 9000 * MIB
    assert bytes_in_use(leases([0])[0].gpus) == 0
    assert bytes_in_use(()) is None
    fake = fake_nvml.install(monkeypatch, gb10())
    (lease,) = leases()
    assert bytes_in_use(lease.gpus) is None  # not supported
    fake.gpus[0].lost = True
    assert bytes_in_use(lease.gpus) is None
