"""Leases and answers. Threads replace processes where the test needs no process."""

from __future__ import annotations

import threading

import pytest

from sweep.launch.device_leases import Lease, leases
from sweep.launch.device_pool import Pool


def test_an_answer_arrives_at_once_and_its_lease_is_free_after_the_process_exits():
    left, begun = threading.Event(), threading.Event()

    def first(lease: Lease, answered) -> str:
        answered("early")
        assert left.wait(10)
        return "late"

    def second(lease: Lease, answered) -> str:
        begun.set()
        return "second"

    with Pool(leases(slots=1)) as pool:
        pool.submit(1, first)
        assert pool.free == 0
        assert [(done.tag, done.value) for done in pool.wait(10)] == [(1, "early")]
        assert pool.free == 1
        pool.submit(2, second)
        assert not begun.wait(0.2)
        left.set()
        assert [(done.tag, done.value) for done in pool.wait(10)] == [(2, "second")]


def test_an_error_before_the_answer_is_reported_and_frees_the_lease():
    def fails(lease: Lease, answered) -> None:
        raise OSError("no process")

    with Pool(leases(slots=1)) as pool:
        for tag in range(3):
            pool.submit(tag, fails)
            (done,) = pool.wait(10)
            assert done.tag == tag
            with pytest.raises(OSError, match="no process"):
                raise done.error
