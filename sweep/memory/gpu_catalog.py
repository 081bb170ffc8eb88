"""Which GPUs a run fits on: cards by name, the cards of this machine, and the memory that a process needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.memory.prediction import Machine, Prediction
from sweep.meters.other_processes import CONTEXT_BYTES
from sweep.runtime.gpus import Gpu

_MIB = 2**20
# Reserved over allocated memory, where no better figure is known: 1.04 to 1.49 were measured on a T4 (fitcheck's
# archive, 61 rows), 1.16 on average.
RESERVED_PRIOR = 1.16


@dataclass(frozen=True)
class Card:
    """A GPU. `capacity_bytes` is the total that the driver reports: with ECC, less than the name states."""

    label: str
    name: str
    capacity_bytes: int


# Total memory in MiB as `nvidia-smi` prints it, from outputs that makers and users have posted; none was measured here.
# It is less than the label states with ECC (T4, L40S) or where the label rounds (an "80 GB" H100 has 79.6 GiB). Where
# several cards have a label, this is the smallest of them. NVML reports the cards of this machine itself.
NAMED = (
    Card("16", "T4", 15360 * _MIB),
    Card("24", "RTX 4090", 24564 * _MIB),
    Card("40", "A100", 40536 * _MIB),
    Card("48", "L40S", 46068 * _MIB),
    Card("80", "H100", 81559 * _MIB),
    Card("141", "H200", 143771 * _MIB),
)


def held_bytes(prediction: Prediction) -> dict[str, float]:
    """The most that the allocator reserves in each phase, in bytes, as far as it is known."""
    train = prediction.reserved_bytes or prediction.allocated_bytes * RESERVED_PRIOR
    return {"train": train, "load": prediction.load_bytes or 0, "eval": prediction.eval_bytes or 0}


def deciding_phase(prediction: Prediction) -> str:
    """The phase that needs most memory. Evaluation can need more than training: it generates many answers at a time."""
    held = held_bytes(prediction)
    return max(held, key=held.__getitem__)


def needed_bytes(prediction: Prediction) -> int:
    """The memory that a process needs of a card: the most that its allocator reserves in any phase, plus the declared
    error, plus the CUDA context."""
    return int(max(held_bytes(prediction).values()) * (1 + prediction.relative_band)) + CONTEXT_BYTES


def smallest(prediction: Prediction, cards: Sequence[Card]) -> Card | None:
    """The smallest card that the run fits on, or None."""
    fitting = [card for card in cards if needed_bytes(prediction) <= card.capacity_bytes]
    return min(fitting, key=lambda card: card.capacity_bytes, default=None)


def machine_of(gpu: Gpu) -> Machine:
    """A GPU of this machine, before CUDA was asked about it."""
    return Machine(kind="cuda", capability=gpu.capability, name=gpu.name, capacity_bytes=gpu.capacity_bytes)


def card_of(gpu: Gpu) -> Card | None:
    """None where NVML does not report the memory."""
    if gpu.capacity_bytes is None:
        return None
    return Card(f"{gpu.capacity_bytes / 2**30:.0f}", f"here: {gpu.name}", gpu.capacity_bytes)
