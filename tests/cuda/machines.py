"""Machines that are not there: GPUs as the stand-ins for NVML and for the driver describe them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

STANDINS = Path(__file__).with_name("standins")
LIBRARIES = {"nvml.c": "libnvidia-ml.so.1", "driver.c": "libcuda.so.1"}


class Gpu(NamedTuple):
    name: str
    total_mib: int
    capability: str
    has_energy_counter: bool = True
    parent: int = -1  # of a MIG device: the number of its GPU

    def line(self, number: int) -> str:
        values = (self.name, uuid(number, self.parent >= 0), self.total_mib, 4, self.capability)
        return "|".join(map(str, (*values, int(self.has_energy_counter), self.parent)))


def uuid(number: int, mig: bool = False) -> str:
    return f"{'MIG' if mig else 'GPU'}-{number:08d}-1111-2222-3333-444444444444"


H100 = Gpu("NVIDIA H100 80GB HBM3", 81559, "9.0")
A100 = Gpu("NVIDIA A100-SXM4-40GB", 40960, "8.0")
GTX_1660 = Gpu("NVIDIA GeForce GTX 1660", 6144, "7.5", has_energy_counter=False)
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", 24564, "8.9")
SLICE = Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9856, "9.0", parent=0)
SPARK = Gpu("NVIDIA GB10", 0, "12.1")  # its memory is the host's: NVML does not state it


class Machine(NamedTuple):
    gpus: tuple[Gpu, ...] = ()
    env: Mapping[str, str] = {}

    def environment(self, libraries: Path, driver_log: Path) -> dict[str, str]:
        """The environment of a process on this machine."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_", "STANDIN_"))}
        described = {"STANDIN_GPUS": ";".join(gpu.line(i) for i, gpu in enumerate(self.gpus))} if self.gpus else {}
        return {
            **kept,
            **described,
            "LD_LIBRARY_PATH": str(libraries),
            "STANDIN_DRIVER_LOG": str(driver_log),
            **self.env,
        }


MACHINES = {
    "no GPU": Machine(env={"STANDIN_ERROR": "9"}),
    "one H100": Machine((H100,)),
    "eight H100s": Machine((H100,) * 8),
    "a display GPU and an RTX 4090": Machine((GTX_1660, RTX_4090)),
    "two kinds of GPUs": Machine((H100, A100)),
    "an RTX 4090, named by its UUID": Machine((GTX_1660, RTX_4090), {"CUDA_VISIBLE_DEVICES": uuid(1)}),
    "a MIG device": Machine((H100, SLICE), {"CUDA_VISIBLE_DEVICES": uuid(1, mig=True)}),
    "a GPU that does not state its memory": Machine((SPARK,)),
    "GPUs hidden by an empty variable": Machine((H100,), {"CUDA_VISIBLE_DEVICES": ""}),
    "GPUs hidden by SLURM": Machine((H100,), {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}),
    "NVML that fails": Machine((H100,), {"STANDIN_ERROR": "999"}),
}


def compile_standins(folder: Path) -> Path:
    """Compile both stand-ins into `folder`, under the names by which programs load the real ones."""
    for source, library in LIBRARIES.items():
        flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", folder / library, STANDINS / source], check=True)
    return folder
