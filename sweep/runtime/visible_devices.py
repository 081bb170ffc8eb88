"""CUDA_VISIBLE_DEVICES as CUDA reads it. Imports nothing heavy."""

from __future__ import annotations

import itertools
import os
import re

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAME = re.compile(r"\d+$|GPU-|MIG-")


def named() -> list[str] | None:
    """The devices that CUDA_VISIBLE_DEVICES names, in its order. None if it is not set: CUDA then sees all devices.

    CUDA stops at the first text that is neither a number nor a UUID, so that "", "-1" and SLURM's "NoDevFiles" name no
    device.
    """
    value = os.environ.get(VISIBLE)
    if value is None:
        return None
    names = (name.strip() for name in value.split(","))
    return list(dict.fromkeys(itertools.takewhile(_NAME.match, names)))
