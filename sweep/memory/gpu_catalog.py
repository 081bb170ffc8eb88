"""Does a run fit a GPU: named cards and those present, and what a process needs beside its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.memory.prediction import Machine, Prediction
from sweep.runtime import nvml

_MIB = 2**20
# What the CUDA context and the libraries' kernels take of a card, by generation 0.3 to 0.6 GiB: not the allocator's.
CONTEXT_BYTES = 600 * _MIB
# What the allocator holds beyond what it gave out, where no better figure is known: 1.04 to 1.49 times were measured on
# a T4 (fitcheck's archive, 61 rows), 1.16 on the average.
RESERVED_PRIOR = 1.16


@dataclass(frozen=True)
class Card:
    """`capacity_bytes` is the total that the driver reports, which is less than the name says where ECC is on."""

    label: str
    name: str
    capacity_bytes: int


# Total memory as `nvidia-smi` prints it for these cards, in MiB, in their makers' and users' posted outputs; none was
# measured here. Less than the label says where ECC is on (T4, L40S) or the label rounds (an "80 GB" H100 has 79.6 GiB).
# What runs can use is this less the context, which `needed_bytes` adds. The smallest of its class, where several carry
# the label. A card that is present is asked itself (`present`).
NAMED = (
    Card("16", "T4", 15360 * _MIB),
    Card("24", "RTX 4090", 24564 * _MIB),
    Card("40", "A100", 40536 * _MIB),
    Card("48", "L40S", 46068 * _MIB),
    Card("80", "H100", 81559 * _MIB),
    Card("141", "H200", 143771 * _MIB),
)


def held_bytes(prediction: Prediction) -> dict[str, float]:
    """The most that the allocator holds in each phase, as far as it is known."""
    train = prediction.reserved_bytes or prediction.allocated_bytes * RESERVED_PRIOR
    return {"train": train, "load": prediction.load_bytes or 0, "eval": prediction.eval_bytes or 0}


def deciding_phase(prediction: Prediction) -> str:
    """The phase that needs most: not always training, since answers are generated many at a time."""
    held = held_bytes(prediction)
    return max(held, key=held.__getitem__)


def needed_bytes(prediction: Prediction) -> int:
    """What a process needs of a card: the most that its allocator holds in any phase, the declared error on top, and
    the context."""
    return int(max(held_bytes(prediction).values()) * (1 + prediction.relative_band)) + CONTEXT_BYTES


def smallest(prediction: Prediction, cards: Sequence[Card]) -> Card | None:
    """The smallest card that has room for it, or None."""
    fitting = [card for card in cards if needed_bytes(prediction) <= card.capacity_bytes]
    return min(fitting, key=lambda card: card.capacity_bytes, default=None)


def present() -> list[tuple[Card, Machine]]:
    """The GPUs of this machine, by NVML; none where there is no NVML."""
    found: dict[Card, Machine] = {}
    with nvml.opened() as library:
        if library is None:
            return []
        try:
            for index in range(library.nvmlDeviceGetCount()):
                handle = library.nvmlDeviceGetHandleByIndex(index)
                total, name = library.nvmlDeviceGetMemoryInfo(handle).total, str(library.nvmlDeviceGetName(handle))
                capability = tuple(library.nvmlDeviceGetCudaComputeCapability(handle))
                machine = Machine(kind="cuda", capability=capability, name=name, capacity_bytes=total)
                found[Card(f"{total / 2**30:.0f}", f"here: {name}", total)] = machine
        except library.NVMLError:
            return []
    return list(found.items())
