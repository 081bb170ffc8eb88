"""The plan as text: one row per setting, with the parts of its peak and the cards that it fits on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweep.core.formatting import gib, table
from sweep.memory import Machine, Prediction, Unpredictable, gpu_catalog

if TYPE_CHECKING:
    from sweep.diagnostics.mitigations import Mitigation
    from sweep.memory.gpu_catalog import Card

# Column → the categories of `prediction.CATEGORIES` that it sums.
PARTS = {
    "weights": ("frozen_weights", "trainable_weights", "quantized_weights", "quantization_state"),
    "gradients": ("gradients",),
    "optimizer": ("optimizer_state",),
    "activations": ("activations",),
    "loss": ("logits_and_loss",),
    "other": ("temporaries", "workspaces", "buffers_and_batch", "allocator_rounding"),
}
_DOES = {"load": "load", "eval": "evaluate"}  # phases that may need more than training
_YES, _NO = "✓", "·"
_WIDTH = 116


def text(
    predicted: Sequence[tuple[str, Prediction | Unpredictable]],
    on_cards: Sequence[Card],
    machine: Machine,
    corners: bool,
) -> list[str]:
    """The table, the worst setting, and the assumptions of the figures."""
    rows = [(name, answer) for name, answer in predicted if isinstance(answer, Prediction)]
    failed = [(name, answer.reason) for name, answer in predicted if isinstance(answer, Unpredictable)]
    lines = []
    if rows:
        paged = any(answer.paged_bytes for _, answer in rows)
        head = ["setting", "peak", "in", *PARTS, *(["paged"] if paged else [])]
        head += ["needs", *(f"{card.label} GB" for card in on_cards), "smallest card"] if on_cards else []
        lines += _aligned([head, *(_row(name, answer, on_cards, paged) for name, answer in rows)])
        worst = max(rows, key=lambda row: row[1].peak_bytes)
        total = sum(answer.peak_bytes for _, answer in rows)
        lines += ["", f"worst: {worst[0]}, {gib(worst[1].peak_bytes)}; all {len(rows)} together: {gib(total)}"]
        lines += _notes(rows, machine, bool(on_cards))
    if corners:
        lines.append("These are the corners of the space: the ends of each range, with every choice.")
    for reason in dict.fromkeys(reason for _, reason in failed):
        names = ", ".join(name for name, why in failed if why == reason)
        lines += ["", f"{names}: no prediction"]
        lines += [f"  {part}" for line in reason.splitlines() for part in textwrap.wrap(line, _WIDTH - 2)]
    return lines


def _row(name: str, answer: Prediction, on_cards: Sequence[Card], paged: bool) -> list[str]:
    parts = [gib(sum(answer.breakdown.get(key, 0) for key in keys)) for keys in PARTS.values()]
    row = [name, gib(answer.peak_bytes), answer.peak_at, *parts, *([gib(answer.paged_bytes)] if paged else [])]
    if not on_cards:
        return row
    needed, phase = gpu_catalog.needed_bytes(answer), gpu_catalog.deciding_phase(answer)
    fits = [_YES if needed <= card.capacity_bytes else _NO for card in on_cards]
    smallest = gpu_catalog.smallest(answer, on_cards)
    last = f"{smallest.label} GB ({smallest.name})" if smallest else "none"
    return [*row, gib(needed) + (f" to {_DOES[phase]}" if phase in _DOES else ""), *fits, last]


def _notes(rows: Sequence[tuple[str, Prediction]], machine: Machine, fits: bool) -> list[str]:
    """The definition of the figures and their assumptions. An assumption that all settings share is named once."""
    if machine.kind == "cuda":
        major, minor = machine.capability or (8, 0)
        lines = [f"Peak: allocated memory of the training phase, on CUDA of compute capability {major}.{minor}."]
        if any(answer.paged_bytes for _, answer in rows):
            lines = [
                "Peak: allocated memory of the training phase and paged optimizer state, on CUDA of compute "
                f"capability {major}.{minor}. Paged state can leave the GPU for the host: `needs` is without it."
            ]
    else:
        lines = ["Peak: live tensor bytes of the training phase, on the CPU."]
    if fits:
        lines.append(
            "Needs: the most that the allocator holds in any phase, plus the declared error and "
            f"{gib(gpu_catalog.CONTEXT_BYTES)} for the CUDA context."
        )
    tiers = {"trace": "by executing the run on fake tensors", "formula": "by the closed form"}
    for tier, how in tiers.items():
        of_tier = [(name, answer) for name, answer in rows if answer.tier == tier]
        if of_tier:
            who = "" if len(of_tier) == len(rows) else f" ({', '.join(name for name, _ in of_tier)})"
            band = max(answer.relative_band for _, answer in of_tier)
            lines.append(f"Predicted {how}{who}, with an error of at most {band:.1%}.")
        reasons = {a.assumptions["not_executed"] for _, a in of_tier if "not_executed" in a.assumptions}
        lines += [f"  since {reason}" for reason in sorted(reasons)]
    for key in ("longest_micro_batch", "attention_kernel"):
        values = sorted({answer.assumptions[key] for _, answer in rows if key in answer.assumptions})
        if values:
            lines.append(f"{key.replace('_', ' ').capitalize()}: {'; '.join(values)}.")
    return [part for line in lines for part in textwrap.wrap(line, _WIDTH, subsequent_indent="  ")]


def remedy_lines(steps: Mapping[str, Sequence[Mitigation]], target: Card) -> list[str]:
    """For each setting that does not fit on `target`, the changes that save memory, one after another."""
    lines = []
    for name, changes in steps.items():
        done = bool(changes) and changes[-1].needed_bytes <= target.capacity_bytes
        lines += ["", f"{name} on {target.label} GB ({target.name}), {gib(target.capacity_bytes)}:"]
        if not changes:
            lines.append("  no known change saves memory")
            continue
        lines += _aligned(
            [
                (f"  {c.overrides}", f"saves {gib(c.saved_bytes)}", f"needs {gib(c.needed_bytes)}", c.why)
                for c in changes
            ]
        )
        lines.append("  With these it fits." if done else "  It does not fit with all of them; take a smaller model.")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text. The first and the last are aligned to the left, the others to the right."""
    return table(rows, left=(0, len(rows[0]) - 1)).splitlines()
