"""What a process sees of CUDA. `python probe.py server` prints it as JSON for a child of the fork server."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def seen(report: object = None) -> dict[str, Any]:
    """In a run's process, before anything has used CUDA."""
    import bitsandbytes.cextension
    import torch

    return {
        "pid": os.getpid(),
        "forked after CUDA was used": torch.cuda._is_in_bad_fork(),
        "bitsandbytes": type(bitsandbytes.cextension.lib).__name__,
    }


def server() -> dict[str, Any]:
    from sweep.processes import isolated_call

    child = isolated_call.call("probe:seen")
    return {"child": child, "method": isolated_call.training_server().method}


def prediction(folder: str, variant: str) -> dict[str, Any]:
    """Of an H100, whatever the machine has."""
    import sweep
    from sweep.memory import Machine

    overrides = ["model=pretrained", f"model.path={folder}", f"variant={variant}", "train.max_length=64"]
    machine = Machine(kind="cuda", capability=(9, 0), name="H100", capacity_bytes=80 << 30)
    return sweep.predict_memory(overrides, machine).as_dict()


if __name__ == "__main__":
    print(json.dumps({"server": server, "prediction": prediction}[sys.argv[1]](*sys.argv[2:])))
