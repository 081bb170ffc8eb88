"""Memory on the CPU, where PyTorch keeps no statistics: the bytes of live tensors, counted storage by storage."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.meters import MemoryMeter
from sweep.meters.host import peak_rss_bytes, reset_peak_rss


class LiveStorages(TorchDispatchMode):
    """Sums the bytes of distinct live tensor storages, and keeps the peak, while it is entered.

    It sees what operators take and return, so it counts weights that are mapped from a file, which an allocator does
    not, and leaves out what a kernel allocates and frees inside itself. A storage is counted once, however many views
    it has, and until it is freed, also outside the mode. Same quantity as CUDA's `requested_bytes`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._tokens: dict[int, object] = {}  # address of the C++ storage → who counts it now
        self._refs: dict[object, Any] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Count this tensor's storage, if it is not counted yet."""
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._tokens:
            return
        size, token = storage.nbytes(), object()
        if not size:
            return

        def freed(_: Any, address: int = address, token: object = token, size: int = size) -> None:
            if self._tokens.get(address) is token:
                del self._tokens[address]
            del self._refs[token]
            self.live_bytes -= size

        self._tokens[address] = token
        self._refs[token] = weakref.ref(storage, freed)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def _add_all(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                self.add(value)
            elif isinstance(value, list | tuple):
                self._add_all(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self._add_all(args)
        if kwargs:
            self._add_all(kwargs.values())
        result = func(*args, **(kwargs or {}))
        self._add_all((result,))
        return result


def model_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, their gradients, buffers, and the quantisation state that hangs on 4-bit weights."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
            state = getattr(state, "state2", None)
    yield from model.buffers()


class LiveTensorMemory(MemoryMeter):
    """Peak of live tensor bytes by phase, with the host's resident set beside it.

    Counting costs some per cent of an operator's time, so it is on inside windows only: all of loading, the first
    training steps (the longest batch is among them), the first batch of evaluation. Resident set is another quantity,
    with libraries and freed heap in it, and reads 55 to 180% higher: it is never used in its stead.
    """

    source = "cpu_live_tensor_bytes"

    def __init__(self) -> None:
        super().__init__()
        self._storages = LiveStorages()
        self._windows = 0

    def watch(self, model: torch.nn.Module) -> None:
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

    def _begin(self) -> None:
        self._windows = 0
        self._storages.reset_peak()
        reset_peak_rss()

    def _end(self, phase: str) -> None:
        if self._windows:
            self.readings[f"memory/{phase}_max_allocated_bytes"] = self._storages.peak_bytes
            self.readings[f"memory/{phase}_metered_windows"] = self._windows
        rss = peak_rss_bytes()
        if rss is not None:
            self.readings[f"memory/{phase}_host_rss_bytes"] = rss
