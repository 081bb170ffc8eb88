"""The weights that a run has trained. They are saved with the run if they are small enough: an export needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sweep.tracking.options import Tracking
    from sweep.variants import Variant


def trained_bytes(model: torch.nn.Module) -> int:
    """Bytes of the trainable parameters, in the precision of training."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def keep(variant: Variant, model: torch.nn.Module, folder: Path, tracking: Tracking) -> dict[str, float]:
    """Save the trained weights if they have at most `tracking.max_saved_weights_bytes` bytes.

    The size decides and not the variant, since a whole small model can be smaller than an adapter of a large one: LoRA
    r=16 on all linear layers of Llama-3-8B is 168 MB in fp32, and all of DistilBERT is 268 MB.

    Returns:
        `weights/trained_bytes`, and `weights/saved_bytes`, their size on the disk, if they were saved.
    """
    size = trained_bytes(model)
    if size > tracking.max_saved_weights_bytes:
        return {"weights/trained_bytes": size}
    variant.save(model, folder)
    saved = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0  # the main rank writes
    return {"weights/trained_bytes": size, "weights/saved_bytes": saved}
