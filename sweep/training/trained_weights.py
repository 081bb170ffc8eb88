"""What a run trained, kept with the run where it is small enough: an export needs it, and nothing else can give it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sweep.tracking.options import Tracking
    from sweep.variants import Variant


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the parameters that train, in the precision that they train in."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def keep(variant: Variant, model: torch.nn.Module, folder: Path, tracking: Tracking) -> dict[str, float]:
    """Save what was trained, if it takes at most `tracking.max_saved_weights_bytes`.

    By size and not by variant, since the whole of a small model costs less than an adapter of a large one: LoRA r=16
    on all linear layers of Llama-3-8B is 168 MB in fp32, all of DistilBERT 268 MB. Returns `weights/trained_bytes`, and
    `weights/saved_bytes` as they are on the disk where they were kept.
    """
    size = trained_bytes(model)
    if size > tracking.max_saved_weights_bytes:
        return {"weights/trained_bytes": size}
    variant.save(model, folder)
    kept = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0  # the main rank writes
    return {"weights/trained_bytes": size, "weights/saved_bytes": kept}
