"""The extension of a trace of four layers to as many as the model has, since its layers are alike.

In a log whose events have a layer, the layers follow each other in sweeps: 0, 1, 2, 3 in a forward, 3, 2, 1, 0 in a
backward, 0, 1, 2, 3 again in an optimizer's lists. Layers 1 and 2 of each sweep are compared event by event. Where they
are equal (in sizes, in order, and in the relative layers of the blocks that they free), copies of them are inserted.
Where they are not, `Irregular` is raised, and the caller traces all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from sweep.memory.simulation.allocation_log import NO_LAYER, Block, Event

TRACED = 4  # layers: a first one, a last one, and two equal ones between them


class Irregular(Exception):
    """The layers of this log do not repeat."""


class _Run(NamedTuple):
    """Consecutive events of one layer. `sweep` numbers the passes through the layers; None outside of a pass."""

    layer: int
    events: list[Event]
    sweep: int | None


class _Creation(NamedTuple):
    layer: int
    sweep: int | None
    offset: int


def extend(events: Sequence[Event], blocks: Mapping[int, Block], layers: int) -> tuple[list[Event], dict[int, Block]]:
    """The log of a model of `layers` layers, from the log of a model of `TRACED` layers.

    Raises:
        Irregular: where the log does not show that its inner layers are alike.
    """
    runs = _runs(in_order(events, blocks))
    creations = {
        event.key: _Creation(run.layer, run.sweep, offset)
        for run in runs
        for offset, event in enumerate(run.events)
        if event.size is not None
    }
    pairs = _pairs(runs, blocks, creations)
    builder = _Builder(blocks, creations, layers - TRACED)
    for index, run in enumerate(runs):
        builder.play(run, run.layer if run.layer < 2 else run.layer + builder.more)
        if index in pairs:
            inner = [run, runs[index + 1]]
            ascending = run.layer == 1
            for layer in sorted(range(2, 2 + builder.more), reverse=not ascending):
                builder.copy(*(inner if ascending else reversed(inner)), layer)
    return builder.events, builder.blocks


def extend_sums(by_layer: Mapping[int, int], layers: int) -> dict[int, int]:
    """Sums by layer of a model of `layers` layers, from those of a model of `TRACED` layers."""
    inner = by_layer.get(1)
    more = {} if inner is None else dict.fromkeys(range(TRACED, layers), inner)
    return {**by_layer, **more}


def in_order(events: Sequence[Event], blocks: Mapping[int, Block]) -> list[Event]:
    """The same log, in which frees that follow each other are sorted. A cleared cache frees in the order of a hash
    table; no sum at a creation and no state of an allocator depends on that order.

    Frees in layers that are not neighbours are a sweep through all layers: each gets the layer of its block.
    """
    ordered: list[Event] = []
    for dead, members in groupby(events, key=lambda event: event.size is None):
        group = list(members)
        if dead:
            here = ordered[-1].layer
            owners = {blocks[event.key].layer for event in group} - {NO_LAYER}
            if owners and (here == NO_LAYER or any(abs(owner - here) > 1 for owner in owners)):
                group = [event._replace(layer=blocks[event.key].layer) for event in group]
                here = None
            group.sort(key=lambda event: (event.layer != here, event.layer == NO_LAYER, event.layer, event.key))
        ordered.extend(group)
    return ordered


def _runs(events: Sequence[Event]) -> list[_Run]:
    grouped = [(layer, list(group)) for layer, group in groupby(events, key=lambda event: event.layer)]
    runs: list[_Run] = []
    sweep = 0
    for index, (layer, group) in enumerate(grouped):
        inner = layer in (1, 2)
        if inner:
            around = {grouped[i][0] for i in (index - 1, index + 1) if 0 <= i < len(grouped)}
            if around != {layer - 1, layer + 1}:
                raise Irregular(f"layer {layer} stands between {sorted(around)}")
            sweep += grouped[index - 1][0] in (0, 3)
        runs.append(_Run(layer, group, sweep if inner else None))
    return runs


def _pairs(runs: Sequence[_Run], blocks: Mapping[int, Block], creations: Mapping[int, _Creation]) -> set[int]:
    """Indices of the first of the two inner runs of each sweep, after a check that the two are equal."""
    found = set()
    for index, (first, second) in enumerate(pairwise(runs)):
        if first.sweep is None or first.sweep != second.sweep:
            continue
        if len(first.events) != len(second.events):
            raise Irregular(f"inner layers have {len(first.events)} and {len(second.events)} events")
        for a, b in zip(first.events, second.events, strict=True):
            if a.size != b.size or a.part != b.part:
                raise Irregular("inner layers differ in an event")
            if a.size is not None:
                if blocks[a.key].category != blocks[b.key].category or blocks[a.key].per_layer_bytes:
                    raise Irregular("inner layers differ in the purpose of a block")
                continue
            towards = [creations[event.key].layer - run.layer for event, run in ((a, first), (b, second))]
            same = creations[a.key][1:] == creations[b.key][1:] if towards[0] == 0 else True
            outside = NO_LAYER in (creations[a.key].layer, creations[b.key].layer)
            if towards[0] != towards[1] or abs(towards[0]) > 1 or not same or outside:
                raise Irregular("inner layers free different blocks")
        found.add(index)
    if not found:
        raise Irregular("no layers were seen")
    return found


class _Builder:
    """Writes the longer log. A block that an inner layer creates is identified by its sweep, its place in the layer's
    events, and the layer."""

    def __init__(self, blocks: Mapping[int, Block], creations: Mapping[int, _Creation], more: int) -> None:
        self.more = more
        self.events: list[Event] = []
        self.blocks: dict[int, Block] = {}
        self._old_blocks = blocks
        self._creations = creations
        self._keys: dict[int, int] = {}  # key in the traced log → key in this one
        self._inner: dict[tuple[int, int, int], int] = {}

    def play(self, run: _Run, layer: int) -> None:
        """Write the events of a traced run as those of `layer`."""
        for offset, event in enumerate(run.events):
            if event.size is not None:
                key = self._created(event, layer)
                self._keys[event.key] = key
                if run.sweep is not None:
                    self._inner[run.sweep, offset, layer] = key
            else:
                creation = self._creations[event.key]
                # The neighbour of an inner layer is a copy now.
                between = run.sweep is not None and creation.sweep is not None and creation.layer != run.layer
                neighbour = layer + (creation.layer - run.layer)
                key = self._inner[creation.sweep, creation.offset, neighbour] if between else self._keys[event.key]
                self.events.append(Event(key, None, layer, event.part))

    def copy(self, lower: _Run, upper: _Run, layer: int) -> None:
        """Write one more inner layer. The blocks of the layer below that it frees follow from the upper traced layer,
        whose neighbour below is an inner layer too; and the other way round."""
        for offset, (low, high) in enumerate(zip(lower.events, upper.events, strict=True)):
            if low.size is not None:
                self._inner[lower.sweep, offset, layer] = self._created(low, layer)
                continue
            towards = self._creations[low.key].layer - lower.layer
            creation = self._creations[high.key if towards < 0 else low.key]
            key = self._inner[creation.sweep, creation.offset, layer + towards]
            self.events.append(Event(key, None, layer, low.part))

    def _created(self, event: Event, layer: int) -> int:
        old = self._old_blocks[event.key]
        size = old.size + self.more * old.per_layer_bytes
        key = len(self.blocks) + 1
        self.blocks[key] = Block(size, old.category, layer)
        self.events.append(Event(key, size, layer, event.part))
        return key
