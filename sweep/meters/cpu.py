"""Memory on the CPU, where PyTorch has no statistics: the bytes of live tensors, counted by storage."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.meters import MemoryMeter
from sweep.meters.host_rss import peak_rss_bytes, reset_peak_rss
from sweep.meters.live_memory import quantization_state
from sweep.meters.memory_timeline import StepMemory
from sweep.runtime.sharding import local
from sweep.runtime.storages import storage_key, tensor_storage_key


class LiveStorages(TorchDispatchMode):
    """Sums the bytes of distinct live tensor storages while it is entered, and keeps the peak.

    It sees the arguments and results of operators. So it counts weights that are mapped from a file, which an allocator
    does not count; and it does not count what a kernel allocates and frees inside itself. A storage counts once, with
    any number of views, until it is freed, also outside the mode. It is the quantity of CUDA's `requested_bytes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._counted: dict[int, tuple[weakref.ref, int]] = {}  # by the key of the storage, with its size
        self._keys: dict[int, int] = {}  # by the id of the weak reference
        self._replaced: list[tuple[Any, Any]] = []  # the original functions, each time that the mode is entered
        self._kinds: dict[int, str] = {}  # by the id of the operator, which lives as long as the program

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No guard of PyTorch around `__torch_dispatch__`. The guard is a third of the mode's cost, and it protects
        compiled code: nothing is compiled here."""
        return False

    def add(self, tensor: torch.Tensor) -> None:
        """Count this tensor's storage, if it is not counted yet."""
        key = tensor_storage_key(tensor)
        if key not in self._counted and not tensor.is_meta:
            storage = tensor.untyped_storage()
            size = storage.nbytes()
            if size:
                reference = weakref.ref(storage, self._freed)
                self._counted[key] = reference, size
                self._keys[id(reference)] = key
                self.live_bytes = live = self.live_bytes + size
                if live > self.peak_bytes:
                    self.peak_bytes = live

    def _freed(self, reference: weakref.ref) -> None:
        self.live_bytes -= self._counted.pop(self._keys.pop(id(reference)))[1]

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def _add_all(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                self.add(value)
            elif isinstance(value, list | tuple):
                self._add_all(value)

    def __enter__(self) -> LiveStorages:
        """Count also the random state that activation checkpointing keeps for each block: no operator creates it."""
        if not self._replaced:
            for key in list(self._counted):  # FSDP keeps the storages that it has gathered, and empties them
                self._recount(key)
        self._replaced.append((torch.get_rng_state, torch.UntypedStorage.resize_))
        torch.get_rng_state = self._rng_state
        torch.UntypedStorage.resize_ = self._resize()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        torch.get_rng_state, torch.UntypedStorage.resize_ = self._replaced.pop()

    def _recount(self, key: int) -> None:
        reference, size = self._counted[key]
        storage = reference()
        if storage is not None and storage.nbytes() != size:
            self._counted[key] = reference, storage.nbytes()
            self.live_bytes += storage.nbytes() - size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _resize(self) -> Any:
        resize = torch.UntypedStorage.resize_

        def resized(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            resize(storage, size)
            if storage_key(storage) in self._counted:
                self._recount(storage_key(storage))
            return storage

        return resized

    def _rng_state(self) -> torch.Tensor:
        state = self._replaced[0][0]()
        self.add(state)
        return state

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if types and DTensor in types:
            return NotImplemented  # PyTorch calls again with this rank's parts
        kind = self._kinds.get(id(func)) or self._kinds.setdefault(id(func), _kind(func))
        if kind is _PYTHON:
            super().__enter__()  # call its kernel, whose temporaries are then seen
            try:
                result = func.redispatch(_CPU, *args, **(kwargs or {}))
            finally:
                super().__exit__(None, None, None)
        else:
            result = func._op(*args, **kwargs) if kwargs else func._op(*args)
        if kind is _VIEW:  # half of a step's operators; the storage counts at the next operator that computes with it
            return result
        counted = self._counted
        for value in args:
            if isinstance(value, torch.Tensor):
                if tensor_storage_key(value) not in counted:  # nearly all are counted: this saves most of the cost
                    self.add(value)
            elif isinstance(value, list | tuple):
                self._add_all(value)
        if kwargs:
            self._add_all(kwargs.values())
        if isinstance(result, torch.Tensor):
            self.add(result)
        elif result is not None:
            self._add_all((result,))
        return result


_VIEW, _PYTHON, _PLAIN = "view", "python", "plain"
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
# Operators with a CPU kernel in Python: bitsandbytes creates the whole weight to multiply by a 4-bit weight.
_PYTHON_KERNELS = frozenset({"bitsandbytes::gemm_4bit"})


def _kind(func: Any) -> str:
    """Whether an operator returns only views of its arguments, has a kernel in Python, or neither."""
    if func._schema.name in _PYTHON_KERNELS:
        return _PYTHON
    aliases = [value.alias_info for value in func._schema.returns]
    return _VIEW if aliases and all(alias is not None and not alias.is_write for alias in aliases) else _PLAIN


def model_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, their gradients, buffers, and the quantisation state of 4-bit weights. Of a sharded model, the part
    of this rank."""
    for parameter in model.parameters():
        yield local(parameter)
        if parameter.grad is not None:
            yield local(parameter.grad)
        yield from quantization_state(parameter)
    yield from model.buffers()


class LiveTensorMemory(MemoryMeter):
    """Peak of live tensor bytes by phase, and the host's resident set.

    Counting costs some per cent of a step's time, so it works inside windows only: all of loading, a few steps of
    training with the longest batch among them, the first batches of evaluation. The resident set is another quantity:
    it contains libraries and freed heap, and reads 55 to 180% higher. It never replaces the tensor bytes.
    """

    source = "cpu_live_tensor_bytes"
    costs_time = True

    def __init__(self) -> None:
        super().__init__()
        self._storages = LiveStorages()
        self._windows = 0
        self._peak = 0

    def watch(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        super().watch(model, optimizer)
        for tensor in model_tensors(model):
            self._storages.add(tensor)

    @contextmanager
    def window(self, wanted: bool = True) -> Iterator[None]:
        if not wanted:
            yield
            return
        self._windows += 1
        with self._storages:
            yield

    @contextmanager
    def step(self, number: int, wanted: bool = True) -> Iterator[None]:
        if not wanted:
            yield
            return
        self._take_peak()
        begin = self._storages.live_bytes
        try:
            with self.window():
                yield
        finally:
            self.timeline.append(StepMemory(number, begin, self._storages.live_bytes, self._storages.peak_bytes))

    def _take_peak(self) -> None:
        self._peak = max(self._peak, self._storages.peak_bytes)
        self._storages.reset_peak()

    def _begin(self) -> None:
        self._windows = self._peak = 0
        self._storages.reset_peak()
        reset_peak_rss()

    def _end(self, phase: str) -> None:
        if self._windows:
            self._take_peak()
            self.readings[f"memory/{phase}_max_allocated_bytes"] = self._peak
            self.readings[f"memory/{phase}_end_allocated_bytes"] = self._storages.live_bytes
            self.readings[f"memory/{phase}_metered_windows"] = self._windows
        rss = peak_rss_bytes()
        if rss is not None:
            self.readings[f"memory/{phase}_host_rss_bytes"] = rss

    def _live_bytes(self) -> int:
        return self._storages.live_bytes
