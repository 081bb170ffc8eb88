"""The log of allocations: when each storage of a step is created and freed, on fake tensors as on real ones.

All figures of a prediction follow from this log. Its running sum peaks at the requested bytes, the blocks that are live
at the peak are the breakdown, and `caching_allocator` replays it. Each event has a layer, so that
`layer_extrapolation` can extend the trace of a few layers to many.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.memory.simulation.cuda_kernels import inner_bytes
from sweep.runtime.storages import tensor_storage_key

NO_LAYER = -1
LOAD, FORWARD, BACKWARD, OPTIMIZER, EVALUATION = "load", "forward", "backward", "optimizer", "evaluation"
PROMPT = "prompt"  # the prompt of a generation of which only the later tokens count


@dataclass(slots=True)
class Block:
    """One storage: its purpose, and its layer. `per_layer_bytes` is its growth with each further layer, for the few
    that hold something of every layer."""

    size: int
    category: str
    layer: int
    per_layer_bytes: int = 0


class Event(NamedTuple):
    """The block `key` is created (`size` bytes) or freed (`size` None), in a part of the step."""

    key: int
    size: int | None
    layer: int
    part: str


class EventLog(TorchDispatchMode):
    """Logs the storages that operators return, from the first time that they occur, on devices of `device_type`: "meta"
    while the model is built, then the device that it is moved to.

    `part` and `layer` are the program's current part of the step and layer; hooks set them. CUDA kernels also allocate
    inside themselves, which no dispatch mode sees: with `inner`, the sizes from `cuda_kernels.inner_bytes` are logged
    as created and freed at once. Code that reads a tensor's value gets one that lets a loop continue: 1, 1.0 or False.
    """

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.blocks: dict[int, Block] = {}
        self.part = LOAD
        self.layer = NO_LAYER
        self.evaluating: list[str] = []  # the parts of the next forwards without gradients
        self.paged: Mapping[int, int] = {}  # by layer: the optimizer's state in managed memory
        self.vocabulary: int | None = None
        self.device_type = "meta"
        self._inner = inner
        self._keys: dict[int, int] = {}  # address of the C++ storage → key
        self._refs: dict[int, Any] = {}
        self._sticky = NO_LAYER
        self._next = 0

    def add(self, tensor: torch.Tensor, category: str | None = None, layer: int | None = None) -> None:
        """Log this tensor's storage if it is new, with its purpose and its layer, if given."""
        if tensor.device.type != self.device_type:
            return
        key = self._keys.get(tensor_storage_key(tensor))
        if key is None:
            size = tensor.untyped_storage().nbytes()
            if size:
                key = self._created(size, category or self._category(tensor), self.layer if layer is None else layer)
                self._watch(key, tensor)
        elif category is not None:
            self.blocks[key].category = category

    def reserve(self, size: int, per_layer_bytes: int) -> None:
        """On a GPU, log a block that is freed at once, so that the allocator has its memory."""
        if self._inner:
            key = self._created(size, "temporaries", NO_LAYER)
            self.blocks[key].per_layer_bytes = per_layer_bytes
            self.events.append(Event(key, None, NO_LAYER, self.part))

    def move(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Replace the meta tensor `old` by `new`, which is on the device."""
        self._watch(self._keys.pop(tensor_storage_key(old)), new)

    def _watch(self, key: int, tensor: torch.Tensor) -> None:
        address = tensor_storage_key(tensor)
        self._keys[address] = key
        self._refs[key] = weakref.ref(tensor.untyped_storage(), lambda _: self._freed(key, address))

    def belongs(self, tensor: torch.Tensor, category: str, layer: int) -> None:
        """Set the purpose and the layer of a tensor that is logged already."""
        self.add(tensor, category)
        self.blocks[self._keys[tensor_storage_key(tensor)]].layer = layer

    def order_loading(self) -> None:
        """Give each event so far the layer of its block. A block that is freed already gets the layer of the event
        before it."""
        last = NO_LAYER
        for index, event in enumerate(self.events):
            block = self.blocks[event.key]
            if event.size is not None:
                last = block.layer if block.layer != NO_LAYER or event.key in self._refs else last
                block.layer = last
            self.events[index] = event._replace(layer=block.layer)

    def layer_of(self, tensor: torch.Tensor) -> int | None:
        """The layer of a tensor; None for one that is not logged."""
        if tensor.device.type != self.device_type:
            return None
        key = self._keys.get(tensor_storage_key(tensor))
        return None if key is None else self.blocks[key].layer

    def enter(self, part: str, layer: int = NO_LAYER) -> None:
        """The program enters this part of the step, and this layer."""
        self.part, self.layer, self._sticky = part, layer, NO_LAYER

    def _created(self, size: int, category: str, layer: int) -> int:
        self._next += 1
        self.blocks[self._next] = Block(size, category, layer)
        self.events.append(Event(self._next, size, layer, self.part))
        return self._next

    def _freed(self, key: int, address: int) -> None:
        if self._keys.get(address) == key:
            del self._keys[address]
        del self._refs[key]
        own = self.blocks[key].layer
        foreign = self.layer == NO_LAYER or self.part == OPTIMIZER or (own != NO_LAYER and abs(own - self.layer) > 1)
        self.events.append(Event(key, None, own if foreign else self.layer, self.part))

    def _category(self, tensor: torch.Tensor) -> str:
        if self.part == OPTIMIZER:
            return "temporaries"
        if self.vocabulary is not None and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary:
            return "logits_and_loss"
        # Checkpointing recomputes with gradients on; the backward itself runs with gradients off.
        return "temporaries" if self.part == BACKWARD and not torch.is_grad_enabled() else "activations"

    def _owners(self, args: tuple, result: Any) -> list[int]:
        """For each tensor of `result`, the layer of the parameter that it was computed from: the optimizer processes
        parameters one by one, or all at once in lists."""
        lists = [a for a in args if isinstance(a, list | tuple) and a and isinstance(a[0], torch.Tensor)]
        if isinstance(result, torch.Tensor):
            owners = (self.layer_of(a) for a in args if isinstance(a, torch.Tensor))
            found = next((owner for owner in owners if owner is not None), None)
            if found is None and lists:
                self._sticky = NO_LAYER
            elif found is not None:
                self._sticky = found
            return [self._sticky]
        self._sticky = NO_LAYER
        if lists and len(lists[0]) == len(result):
            owners = [self.layer_of(tensor) for tensor in lists[0]]
            return [NO_LAYER if owner is None else owner for owner in owners]
        return [NO_LAYER] * len(result)

    def _grows(self, tensor: torch.Tensor, args: tuple) -> None:
        """Mark a stack of one number per parameter: it grows with the number of layers."""
        key = self._keys.get(tensor_storage_key(tensor))
        if key is None or not args or not isinstance(args[0], list | tuple):
            return
        second = sum(1 for part in args[0] if self.layer_of(part) == 1)
        self.blocks[key].per_layer_bytes = self.blocks[key].size * second // len(args[0])

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return False if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1
        result = func(*args, **kwargs)
        if self._inner:
            for size in inner_bytes(func, args, kwargs):
                key = self._created(size, "temporaries", self.layer)
                self.events.append(Event(key, None, self.layer, self.part))
        if isinstance(result, torch.Tensor):
            if self.part == OPTIMIZER:
                self.add(result, layer=self._owners(args, result)[0])
                if func in (torch.ops.aten.stack.default, torch.ops.aten.cat.default):
                    self._grows(result, args)
            else:
                self.add(result)
        elif isinstance(result, list | tuple) and result:
            owners = self._owners(args, result) if self.part == OPTIMIZER else [self.layer] * len(result)
            for tensor, owner in zip(result, owners, strict=True):
                if isinstance(tensor, torch.Tensor):
                    self.add(tensor, layer=owner)
        return result
