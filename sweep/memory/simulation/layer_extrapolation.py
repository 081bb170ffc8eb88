"""Layers repeat: a trace of four layers, extended to as many as the model has.

In a log whose events say which layer they belong to, layers come in sweeps: 0, 1, 2, 3 in a forward, 3, 2, 1, 0 in a
backward, 0, 1, 2, 3 again through an optimizer's lists. Layers 1 and 2 of each sweep are compared event by event. Where
they are equal (in sizes, in order, and in whose blocks they free, relative to themselves), copies of them are put in
between. Where they are not, `Irregular` is raised, and the caller traces the whole depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from sweep.memory.simulation.allocation_log import NO_LAYER, Block, Event

TRACED = 4  # layers: a first, a last, and two alike between them


class Irregular(Exception):
    """The layers of this log do not repeat."""


class _Run(NamedTuple):
    """Consecutive events of one layer. `sweep` numbers the passes through the layers; None where it is part of none."""

    layer: int
    events: list[Event]
    sweep: int | None


class _Birth(NamedTuple):
    layer: int
    sweep: int | None
    offset: int


def extend(events: Sequence[Event], blocks: Mapping[int, Block], layers: int) -> tuple[list[Event], dict[int, Block]]:
    """The log of a model of `layers` layers, from the log of one of `TRACED`.

    Raises:
        Irregular: where the log does not show that its inner layers are alike.
    """
    runs = _runs(in_order(events, blocks))
    births = {
        event.key: _Birth(run.layer, run.sweep, offset)
        for run in runs
        for offset, event in enumerate(run.events)
        if event.size is not None
    }
    pairs = _pairs(runs, blocks, births)
    builder = _Builder(blocks, births, layers - TRACED)
    for index, run in enumerate(runs):
        builder.play(run, run.layer if run.layer < 2 else run.layer + builder.more)
        if index in pairs:
            inner = [run, runs[index + 1]]
            ascending = run.layer == 1
            for layer in sorted(range(2, 2 + builder.more), reverse=not ascending):
                builder.copy(*(inner if ascending else reversed(inner)), layer)
    return builder.events, builder.blocks


def in_order(events: Sequence[Event], blocks: Mapping[int, Block]) -> list[Event]:
    """The same log with deaths that follow each other sorted. A cache that is cleared frees in the order of a hash
    table; no sum at a birth, and no state of an allocator, depends on that order.

    Deaths in more than neighbouring layers are a sweep through all of them, each in its own layer.
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


def _pairs(runs: Sequence[_Run], blocks: Mapping[int, Block], births: Mapping[int, _Birth]) -> set[int]:
    """Indices of the first of the two inner runs of each sweep, checked to be alike."""
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
                    raise Irregular("inner layers differ in what a block is for")
                continue
            towards = [births[event.key].layer - run.layer for event, run in ((a, first), (b, second))]
            same = births[a.key][1:] == births[b.key][1:] if towards[0] == 0 else True
            outside = NO_LAYER in (births[a.key].layer, births[b.key].layer)
            if towards[0] != towards[1] or abs(towards[0]) > 1 or not same or outside:
                raise Irregular("inner layers free different blocks")
        found.add(index)
    if not found:
        raise Irregular("no layers were seen")
    return found


class _Builder:
    """Writes the longer log. A block born in an inner layer is known by its sweep, its place in the layer's events, and
    the layer."""

    def __init__(self, blocks: Mapping[int, Block], births: Mapping[int, _Birth], more: int) -> None:
        self.more = more
        self.events: list[Event] = []
        self.blocks: dict[int, Block] = {}
        self._old_blocks = blocks
        self._births = births
        self._keys: dict[int, int] = {}  # of the traced log → of this one
        self._inner: dict[tuple[int, int, int], int] = {}

    def play(self, run: _Run, layer: int) -> None:
        """A traced run, as the events of `layer`."""
        for offset, event in enumerate(run.events):
            if event.size is not None:
                key = self._born(event, layer)
                self._keys[event.key] = key
                if run.sweep is not None:
                    self._inner[run.sweep, offset, layer] = key
            else:
                birth = self._births[event.key]
                # The neighbour of an inner layer is a copy now.
                between = run.sweep is not None and birth.sweep is not None and birth.layer != run.layer
                neighbour = layer + (birth.layer - run.layer)
                key = self._inner[birth.sweep, birth.offset, neighbour] if between else self._keys[event.key]
                self.events.append(Event(key, None, layer, event.part))

    def copy(self, lower: _Run, upper: _Run, layer: int) -> None:
        """One more inner layer. What it frees of the layer below is read from the upper traced one, whose neighbour
        below is an inner layer too; and the other way round."""
        for offset, (low, high) in enumerate(zip(lower.events, upper.events, strict=True)):
            if low.size is not None:
                self._inner[lower.sweep, offset, layer] = self._born(low, layer)
                continue
            towards = self._births[low.key].layer - lower.layer
            birth = self._births[high.key if towards < 0 else low.key]
            key = self._inner[birth.sweep, birth.offset, layer + towards]
            self.events.append(Event(key, None, layer, low.part))

    def _born(self, event: Event, layer: int) -> int:
        old = self._old_blocks[event.key]
        size = old.size + self.more * old.per_layer_bytes
        key = len(self.blocks) + 1
        self.blocks[key] = Block(size, old.category, layer)
        self.events.append(Event(key, size, layer, event.part))
        return key
