"""Every tensor's birth and death, in order, while a step runs: on fake tensors as on real ones.

The log is what all figures of a prediction follow from: its running sum peaks at the requested bytes, what lives at the
peak is the breakdown, and a caching allocator can be fed with it. Events carry the layer that they belong to, so that a
trace of few layers can be extended to many (`sweep.memory.simulation.layer_extrapolation`).
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.memory.simulation.cuda_kernels import inner_bytes

NO_LAYER = -1
LOAD, FORWARD, BACKWARD, OPTIMIZER, EVALUATION = "load", "forward", "backward", "optimizer", "evaluation"
PROMPT = "prompt"  # of a generation that only its later tokens are wanted of


@dataclass(slots=True)
class Block:
    """One storage: what it is for, and which layer it belongs to. `per_layer_bytes` is what it grows by with each
    further layer, for the few that gather something of every layer."""

    size: int
    category: str
    layer: int
    per_layer_bytes: int = 0


class Event(NamedTuple):
    """Birth (`size` bytes) or death (`size` None) of the block `key`, in a part of the step."""

    key: int
    size: int | None
    layer: int
    part: str


class EventLog(TorchDispatchMode):
    """Logs storages that operators return, on devices of `device_type`, from the first time they are seen: on "meta"
    while the model is built, then on the device that it is moved to.

    `part` and `layer` say where the program is; hooks set them. Operators on CUDA allocate inside themselves too, where
    no mode can see it: with `inner`, what `kernels.inner_bytes` knows of that is logged as born and freed at once.
    Reading a tensor's value is answered with what keeps a loop going: 1, 1.0, or False.
    """

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.blocks: dict[int, Block] = {}
        self.part = LOAD
        self.layer = NO_LAYER
        self.evaluating: list[str] = []  # what parts the next forwards without gradients are
        self.vocabulary: int | None = None
        self.device_type = "meta"
        self._inner = inner
        self._keys: dict[int, int] = {}  # address of the C++ storage → key
        self._refs: dict[int, Any] = {}
        self._sticky = NO_LAYER
        self._next = 0

    def add(self, tensor: torch.Tensor, category: str | None = None, layer: int | None = None) -> None:
        """Log this tensor's storage if it is new; say what it is for and whose it is, if given."""
        if tensor.device.type != self.device_type:
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        key = self._keys.get(address)
        if key is None:
            size = storage.nbytes()
            if not size:
                return
            key = self._born(size, category or self._category(tensor), self.layer if layer is None else layer)
            self._keys[address] = key
            self._refs[key] = weakref.ref(storage, lambda _: self._freed(key, address))
        elif category is not None:
            self.blocks[key].category = category

    def move(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """`new`, on the device, is what stood for it on meta so far."""
        key = self._keys.pop(old.untyped_storage()._cdata)
        storage = new.untyped_storage()
        address = storage._cdata
        self._keys[address] = key
        self._refs[key] = weakref.ref(storage, lambda _: self._freed(key, address))

    def belongs(self, tensor: torch.Tensor, category: str, layer: int) -> None:
        """What a tensor that was logged already is for, and whose it is."""
        self.add(tensor, category)
        self.blocks[self._keys[tensor.untyped_storage()._cdata]].layer = layer

    def order_loading(self) -> None:
        """Give every event so far the layer that its block turned out to belong to; one that is gone again, the layer
        of the event before it."""
        last = NO_LAYER
        for index, event in enumerate(self.events):
            block = self.blocks[event.key]
            if event.size is not None:
                last = block.layer if block.layer != NO_LAYER or event.key in self._refs else last
                block.layer = last
            self.events[index] = event._replace(layer=block.layer)

    def layer_of(self, tensor: torch.Tensor) -> int | None:
        """The layer that a known tensor belongs to; None for a tensor that is not known."""
        if tensor.device.type != self.device_type:
            return None
        key = self._keys.get(tensor.untyped_storage()._cdata)
        return None if key is None else self.blocks[key].layer

    def enter(self, part: str, layer: int = NO_LAYER) -> None:
        """The program comes to this part of the step, and to this layer."""
        self.part, self.layer, self._sticky = part, layer, NO_LAYER

    def _born(self, size: int, category: str, layer: int) -> int:
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
        # What checkpointing computes again is computed with gradients on; the backward itself is not.
        return "temporaries" if self.part == BACKWARD and not torch.is_grad_enabled() else "activations"

    def _owners(self, args: tuple, result: Any) -> list[int]:
        """For each tensor of `result`, the layer whose parameter it was computed from: the optimizer goes through
        parameters one by one, or all at once by lists."""
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
        """A stack of one number per parameter grows with the number of layers."""
        key = self._keys.get(tensor.untyped_storage()._cdata)
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
                key = self._born(size, "temporaries", self.layer)
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
