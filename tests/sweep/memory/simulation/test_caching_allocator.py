"""The model of the caching allocator, against sizes that follow from its published rules."""

from __future__ import annotations

import random

import pytest

from sweep.memory.simulation.caching_allocator import CachingAllocator

MIB = 2**20


@pytest.mark.parametrize(
    ("request_bytes", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # 1 MiB is left over, which is not split off
        (100 * MIB + 1, 100 * MIB + 512, 102 * MIB),
    ],
)
def test_one_request(request_bytes: int, allocated: int, reserved: int):
    """Rounded to 512 bytes; served from segments of 2 MiB, 20 MiB, or its own, of a multiple of 2 MiB."""
    allocator = CachingAllocator()
    allocator.allocate("a", request_bytes)
    assert (allocator.allocated, allocator.requested, allocator.reserved) == (allocated, request_bytes, reserved)


def test_a_freed_block_is_used_again_and_merged_with_its_neighbours():
    allocator = CachingAllocator()
    for name in "abc":
        allocator.allocate(name, 6 * MIB)
    assert allocator.reserved == 20 * MIB
    allocator.free("a")
    allocator.free("b")
    allocator.allocate("ab", 12 * MIB - 1)
    assert allocator.reserved == 20 * MIB
    allocator.allocate("d", 6 * MIB)
    assert allocator.reserved == 40 * MIB


def test_emptying_the_cache_returns_whole_segments_only():
    allocator = CachingAllocator()
    allocator.allocate("whole", 30 * MIB)
    allocator.allocate("part", 3 * MIB)
    allocator.allocate("rest", 3 * MIB)
    allocator.free("whole")
    allocator.free("part")
    allocator.empty_cache()
    assert allocator.reserved == 20 * MIB


def test_nothing_is_lost_over_many_requests():
    """Whatever the order: what is free and what is used make up what is reserved, and all of it can be given back."""
    generator = random.Random(0)
    allocator = CachingAllocator()
    live: dict[int, int] = {}
    for key in range(2000):
        if live and generator.random() < 0.48:
            gone = generator.choice(list(live))
            allocator.free(gone)
            del live[gone]
        else:
            live[key] = int(2 ** generator.uniform(0, 26))
            allocator.allocate(key, live[key])
        assert allocator.requested == sum(live.values())
        assert allocator.requested <= allocator.allocated <= allocator.reserved
        free = sum(entry[0] for blocks in allocator._free.values() for entry in blocks)
        assert free + allocator.allocated == allocator.reserved
    for key in list(live):
        allocator.free(key)
    allocator.empty_cache()
    assert (allocator.allocated, allocator.requested, allocator.reserved) == (0, 0, 0)
