"""A model of PyTorch's CUDA caching allocator (native backend, default settings), which replays an allocation log.

It follows c10/cuda/CUDACachingAllocator.cpp. Requests are rounded to 512 bytes. Requests of up to 1 MiB share segments
of 2 MiB, requests below 10 MiB share segments of 20 MiB, larger ones get a segment of their own, rounded to 2 MiB. The
allocator takes the smallest free block that fits, splits it where enough is left over, and merges a freed block with
free neighbours.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable
from dataclasses import dataclass

MIB = 2**20
_ROUND = 512
_SMALL_REQUEST = MIB  # up to here from the pool of small blocks
_SMALL_SEGMENT = 2 * MIB
_MEDIUM_REQUEST = 10 * MIB  # below, a large request comes from a shared segment
_MEDIUM_SEGMENT = 20 * MIB
_SEGMENT_ROUND = 2 * MIB
_APART = 2**44  # distance between the addresses of segments, which are invented


@dataclass(slots=True, eq=False)
class _Block:
    address: int
    size: int
    small: bool
    free: bool = True
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """`allocated` counts whole blocks, as `memory_allocated()` does; `requested` counts the sizes of the requests;
    `reserved` counts segments. All in bytes."""

    def __init__(self) -> None:
        self.allocated = self.requested = self.reserved = 0
        self._live: dict[Hashable, tuple[_Block, int]] = {}
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._segments = 0

    def allocate(self, key: Hashable, size: int) -> None:
        """Allocate a block for `size` bytes; `key` frees it."""
        rounded = max(_ROUND, -(-size // _ROUND) * _ROUND)
        small = rounded <= _SMALL_REQUEST
        free = self._free[small]
        index = bisect.bisect_left(free, (rounded,))
        block = free.pop(index)[2] if index < len(free) else self._segment(rounded, small)
        rest = block.size - rounded
        if (rest >= _ROUND) if small else (rest > _SMALL_REQUEST):
            remaining = _Block(block.address + rounded, rest, small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = remaining
            block.after, block.size = remaining, rounded
            self._insert(remaining)
        block.free = False
        self._live[key] = (block, size)
        self.allocated += block.size
        self.requested += size

    def free(self, key: Hashable) -> None:
        """Return a block to its pool, and merge it with free neighbours."""
        block, size = self._live.pop(key)
        self.allocated -= block.size
        self.requested -= size
        block.free = True
        before, after = block.before, block.after
        if before is not None and before.free:
            self._remove(before)
            block = self._merge(before, block)
        if after is not None and after.free:
            self._remove(after)
            block = self._merge(block, after)
        self._insert(block)

    def empty_cache(self) -> None:
        """Return to the device every segment that is free as a whole."""
        for small, blocks in self._free.items():
            whole = [entry for entry in blocks if entry[2].before is None and entry[2].after is None]
            self.reserved -= sum(entry[0] for entry in whole)
            self._free[small] = [entry for entry in blocks if not (entry[2].before is None and entry[2].after is None)]

    def _segment(self, rounded: int, small: bool) -> _Block:
        if small:
            size = _SMALL_SEGMENT
        elif rounded < _MEDIUM_REQUEST:
            size = _MEDIUM_SEGMENT
        else:
            size = -(-rounded // _SEGMENT_ROUND) * _SEGMENT_ROUND
        self._segments += 1
        self.reserved += size
        return _Block(self._segments * _APART, size, small)

    def _merge(self, left: _Block, right: _Block) -> _Block:
        left.size += right.size
        left.after = right.after
        if right.after is not None:
            right.after.before = left
        left.free = True
        return left

    def _insert(self, block: _Block) -> None:
        bisect.insort(self._free[block.small], (block.size, block.address, block))

    def _remove(self, block: _Block) -> None:
        free = self._free[block.small]
        del free[bisect.bisect_left(free, (block.size, block.address))]
