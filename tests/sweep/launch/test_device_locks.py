"""Locks on GPUs, between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_nvml
import pytest
from conftest import ROOT
from fake_nvml import gtx_1660, h100, uuid_of

from sweep.core.errors import UserError
from sweep.launch import device_locks
from sweep.launch.device_leases import Lease, leases
from sweep.launch.device_pool import Pool
from sweep.runtime.gpus import Gpu


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device_locks, "FOLDER", tmp_path)
    monkeypatch.setattr(device_locks, "POLL_SECONDS", 0.02)
    return tmp_path


def of(*names: str, shared: bool = False) -> Lease:
    return Lease(gpus=tuple(Gpu(id=f"GPU-{name}", number=name) for name in names), shared=shared)


HOLD = """
import sys, time
from pathlib import Path
from sweep.launch import device_locks
from sweep.launch.device_leases import Lease
from sweep.runtime.gpus import Gpu
device_locks.FOLDER = Path(sys.argv[1])
held = device_locks.acquire(Lease(gpus=(Gpu(id="GPU-" + sys.argv[2], number="0"),)))
print(held is not None, flush=True)
time.sleep(60)
"""


@contextmanager
def other_process(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Another study that holds a GPU."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "True\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_gpu_of_another_process_is_free_when_that_process_ends(folder: Path, sign: signal.Signals):
    with other_process(folder, "a") as other:
        assert device_locks.acquire(of("a")) is None
        with device_locks.acquire(of("b")):
            pass
        other.send_signal(sign)
        other.wait()
        with device_locks.acquire(of("a")) as held:
            assert held is not None


def test_a_lease_of_several_gpus_locks_all_or_none():
    with device_locks.acquire(of("b")):
        assert device_locks.acquire(of("a", "b")) is None
        with device_locks.acquire(of("a")):
            pass
    with device_locks.acquire(of("a", "b")):
        assert device_locks.acquire(of("a")) is None


def test_shared_gpus_and_the_cpu_are_not_locked(folder: Path):
    for lease in (of("a", shared=True), Lease()):
        with device_locks.acquire(lease), device_locks.acquire(lease) as second:
            assert second is not None
    assert list(folder.iterdir()) == []


def test_the_first_free_gpu_is_taken(folder: Path):
    """Eight workers of joblib on eight GPUs take one each."""
    eight = [of(str(number)) for number in range(8)]
    taken: list[str] = []
    with other_process(folder, "0"), device_locks.first_free(eight) as first, device_locks.first_free(eight) as second:
        taken += [str(first), str(second)]
    assert taken == ["GPU 1", "GPU 2"]


def test_a_process_takes_one_free_gpu_of_one_kind(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As an export does, beside a study."""
    fake_nvml.install(monkeypatch, gtx_1660(), h100(), h100(), visible="0,1,2")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with other_process(folder, uuid_of(1).removeprefix("GPU-")), device_locks.this_process():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid_of(2)


def test_a_file_that_was_deleted_does_not_count_as_locked(folder: Path):
    with device_locks.acquire(of("a")):
        next(folder.iterdir()).unlink()  # a cleaner of the temporary folder
        with device_locks.acquire(of("a")) as held:
            assert held is not None
            assert device_locks.acquire(of("a")) is None


def test_every_user_can_lock(folder: Path):
    device_locks.acquire(of("a")).close()
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_lock_that_cannot_be_opened_is_a_fault_in_words(folder: Path):
    (folder / "paretune-GPU-a.lock").symlink_to(folder / "missing" / "file")
    with pytest.raises(UserError, match=r"paretune-GPU-a\.lock, cannot be opened.*share_devices=true"):
        device_locks.acquire(of("a"))


def test_a_pool_leaves_out_the_gpu_of_another_study(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Its runs share the other GPU, one at a time; the study waits where no GPU is free."""
    caplog.set_level("INFO")
    seen: list[str] = []
    with other_process(folder, "a") as other, Pool([of("a"), of("b")]) as pool:
        for tag in range(4):
            while not pool.free:
                pool.wait(10)
            pool.submit(tag, lambda lease, answered: seen.append(str(lease)))
        while pool.running:
            pool.wait(10)
        assert seen == ["GPU b"] * 4
        with device_locks.acquire(of("b")):
            pool.submit(5, lambda lease, answered: seen.append(str(lease)))
            assert pool.wait(0.2) == []
            other.kill()
            assert pool.wait(10)[0].error is None
    assert seen[-1] == "GPU a"
    assert caplog.text.count("is in use by another run of paretune") == 1


def test_an_interrupt_ends_a_pool_that_waits(folder: Path):
    with other_process(folder, "a"):
        pool = Pool([of("a")])
        pool.__enter__()
        pool.submit(0, lambda lease, answered: None)
        began = time.monotonic()
        pool.__exit__(KeyboardInterrupt)
        assert time.monotonic() - began < 5


def test_no_run_starts_on_a_gpu_that_was_lost(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    fake = fake_nvml.install(monkeypatch, h100(), h100())
    seen: list[str] = []
    both = threading.Barrier(2)

    def work(lease: Lease, answered: object) -> None:
        seen.append(str(lease))
        if len(seen) <= 2:
            both.wait(10)

    with Pool(leases()) as pool:
        for tag in range(2):
            pool.submit(tag, work)
        while pool.running:
            pool.wait(10)
        assert sorted(seen) == ["GPU 0", "GPU 1"]
        fake.gpus[0].lost = True
        for tag in range(3):
            while not pool.free:
                pool.wait(10)
            pool.submit(tag, work)
        while pool.running:
            assert [done.error for done in pool.wait(10)] == [None]
        assert seen[2:] == ["GPU 1"] * 3
        fake.gpus[1].lost = True
        pool.submit(9, work)
        (done,) = pool.wait(10)
        assert isinstance(done.error, UserError)
        assert "all GPUs of this study are lost" in str(done.error)
    assert "GPU 0 is lost: no further run starts on it" in caplog.text
