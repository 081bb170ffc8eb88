"""The GPUs that a process may use, on machines that this one is not."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import fake_nvml
import pytest
from fake_nvml import a100_in_slices, gb10, gtx_1660, h100, rtx_4090, uuid_of

from sweep.runtime import gpus, nvml
from sweep.runtime.visible_devices import named


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),  # SLURM's word for a job without GPUs
        ("0,2", ["0", "2"]),
        (" 1 , 3", ["1", "3"]),
        ("0,-1,2", ["0"]),
        ("0,0,1", ["0", "1"]),
        ("GPU-aa,MIG-bb", ["GPU-aa", "MIG-bb"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    value: str | None, names: list[str] | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert named() == names


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, "01234567"),
        ("4,5", "45"),
        ("5,4", "54"),
        (uuid_of(6), "6"),
        ("GPU-00000003", "3"),  # CUDA takes the beginning of a UUID
        ("GPU-0000000", ""),  # of several GPUs
        ("", ""),
        ("NoDevFiles", ""),
        ("7,9", "7"),
    ],
)
def test_the_visible_gpus_of_a_machine_with_eight(visible: str | None, numbers: str, monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, *(h100() for _ in range(8)), visible=visible)
    found = gpus.visible()
    assert [gpu.number for gpu in found] == list(numbers)
    assert [gpu.id for gpu in found] == [uuid_of(int(number)) for number in numbers]
    assert {(gpu.name, gpu.capability) for gpu in found} <= {("NVIDIA H100 80GB HBM3", (9, 0))}


def test_a_number_in_cuda_s_own_order_is_asked_of_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """CUDA numbers the fastest GPU first, NVML numbers by the bus: of two kinds, CUDA's 0 may be NVML's 1."""
    fake_nvml.install(monkeypatch, gtx_1660(), rtx_4090(), visible="0")
    uuid = uuid_of(1).removeprefix("GPU-")
    answers(monkeypatch, tmp_path, f'[["{uuid}", "NVIDIA GeForce RTX 4090", 8, 9, 25390809088]]')
    (gpu,) = gpus.visible()
    assert (gpu.id, gpu.number, gpu.capacity_bytes) == (uuid_of(1), "1", 24564 * 2**20)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (gpu,) = gpus.visible()
    assert gpu.id == uuid_of(0)


@pytest.mark.parametrize("visible", [None, "0", uuid_of(0)])
def test_a_gpu_in_mig_mode_is_its_slices(visible: str | None, monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, a100_in_slices(2), visible=visible)
    found = gpus.visible()
    assert [(gpu.id, gpu.number, gpu.capacity_bytes) for gpu in found] == [
        ("MIG-00000001-aaaa", "0:1", 4864 * 2**20),
        ("MIG-00000002-aaaa", "0:2", 4864 * 2**20),
    ]


def test_one_slice_by_its_uuid(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, a100_in_slices(2), visible="MIG-00000002-aaaa")
    assert [gpu.number for gpu in gpus.visible()] == ["0:2"]


def test_memory_that_nvml_does_not_report_is_none_and_the_gpu_is_there(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, gb10())
    (gpu,) = gpus.visible()
    assert (gpu.name, gpu.capability, gpu.capacity_bytes) == ("NVIDIA GB10", (12, 1), None)


@pytest.mark.parametrize(("second_version", "used_mib"), [(True, 4), (False, 504)])
def test_memory_of_the_driver_is_not_in_use_where_nvml_can_tell(
    second_version: bool, used_mib: int, monkeypatch: pytest.MonkeyPatch
):
    fake = fake_nvml.install(monkeypatch, h100(), second_version=second_version)
    assert nvml.memory(fake, fake.gpus[0]) == (81559 * 2**20, used_mib * 2**20)


def test_a_lost_gpu_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    fake = fake_nvml.install(monkeypatch, h100(), h100(), h100())
    before = gpus.visible()
    fake.gpus[1].lost = True
    assert [gpu.number for gpu in gpus.visible()] == ["0", "2"]
    assert gpus.lost(before) == [before[1]]


def test_without_nvml_and_without_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch):
    fake_nvml.install(monkeypatch, h100(), fails=True)
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert gpus.visible() == []
    assert gpus.lost([]) == []


def test_without_nvml_cuda_lists_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fake_nvml.install(monkeypatch, fails=True)
    monkeypatch.setattr(gpus, "DEVICE_FILES", (str(tmp_path),))
    answers(monkeypatch, tmp_path, '[["aa-1", "NVIDIA H100", 9, 0, 1000], ["bb-2", "NVIDIA H100", 9, 0, 1000]]')
    found = gpus.visible()
    assert [(gpu.id, gpu.number, gpu.capability) for gpu in found] == [
        ("GPU-aa-1", "0", (9, 0)),
        ("GPU-bb-2", "1", (9, 0)),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7")
    answers(monkeypatch, tmp_path, '[["parent", "NVIDIA A100 MIG 1g.5gb", 8, 0, 1000]]')
    assert [gpu.id for gpu in gpus.visible()] == ["MIG-7"]


def test_a_gpu_that_pytorch_cannot_use_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    fake_nvml.install(monkeypatch, fails=True)
    monkeypatch.setattr(gpus, "DEVICE_FILES", (str(tmp_path),))
    answers(monkeypatch, tmp_path, "[]", "UserWarning: The NVIDIA driver on your system is too old")
    assert gpus.visible() == []
    assert "driver on your system is too old" in caplog.text


@pytest.mark.slow
def test_pytorch_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The real program, to which no GPU is visible."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus._by_cuda(None) == []


@pytest.mark.parametrize(
    ("visible", "files", "count"),
    [(None, 8, 8), ("", 8, 0), ("NoDevFiles", 8, 0), ("2", 8, 1), ("MIG-1", 8, 1), (None, 0, 0), ("0", 0, 0)],
)
def test_the_server_s_count_is_never_negative(
    visible: str | None, files: int, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """PyTorch calls the CUDA driver where its own count is negative."""
    for number in range(files):
        (tmp_path / f"nvidia{number}").touch()
    for fails in (True, False):
        fake_nvml.install(monkeypatch, *(h100() for _ in range(files)), visible=visible, fails=fails)
        monkeypatch.setattr(gpus, "DEVICE_FILES", (f"{tmp_path}/nvidia*",))
        assert gpus.count_without_cuda() == count


def answers(monkeypatch: pytest.MonkeyPatch, folder: Path, listed: str, said: str = "") -> None:
    """A Python that gives this answer for CUDA."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho '{said}' >&2\necho '{listed}'\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
