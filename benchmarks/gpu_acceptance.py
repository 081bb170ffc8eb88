"""Does every promise hold on this machine's GPU? One command, planned for 20 minutes on one GPU.

    python -m benchmarks.gpu_acceptance                    # every check, one line each; exit code 1 if one fails
    python -m benchmarks.gpu_acceptance fork_server fp16   # these checks only
    python -m benchmarks.gpu_acceptance --dry-run          # the same code on the CPU with a tiny model: nothing is kept

The figures are written to `benchmarks/results/gpu_acceptance.json`. The checks need 20 GB of disk while they run. They
need no network: all models have random weights. The command has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.acceptance import llama, machine, memory, models, runs
from benchmarks.acceptance.check import Bench, Check, run_check
from benchmarks.memory.speed import LLAMA_3_8B
from benchmarks.results import save
from sweep.launch import device_leases
from sweep.processes import isolated_call
from sweep.runtime import gpus

CHECKS = tuple(
    Check(check.__name__, check)
    for check in (
        machine.fork_server,
        machine.leases,
        machine.context,
        runs.variants,
        runs.report,
        runs.repeatability,
        runs.out_of_memory,
        runs.others_memory,
        runs.fp16,
        runs.energy,
        memory.grid,
        llama.llama_8b,
        runs.several_gpus,
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(check.name for check in CHECKS))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    names = [check.name for check in CHECKS]
    unknown = [name for name in options.checks if name not in names]
    if unknown:
        parser.error(f"there is no check {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [check for check in CHECKS if check.name in (options.checks or names)]
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="paretune-acceptance-"))
    bench = _bench(folder, options.dry_run)
    rows = {check.name: run_check(check, bench) for check in chosen}
    seconds = time.perf_counter() - started
    failed = [name for name, row in rows.items() if row["result"] == "FAIL"]
    skipped = [name for name, row in rows.items() if row["result"] == "skip"]
    passed = len(rows) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped; {seconds:.0f} s")
    if not options.dry_run:
        save("gpu_acceptance", {"seconds": seconds, "checks": rows}, shown=False)
    if failed:
        print(f"The output of the commands is in {folder}/commands.log", file=sys.stderr)
        for large in ("large", "small"):
            shutil.rmtree(folder / large, ignore_errors=True)
        sys.exit(1)
    shutil.rmtree(folder)


def _bench(folder: Path, dry: bool) -> Bench:
    """The machine under test, with its checkpoints in `folder`."""
    lease = device_leases.leases("auto")[0]
    seen = isolated_call.call("benchmarks.acceptance.machine:seen", env=lease.env)
    if not dry and not seen["gpus"]:
        shutil.rmtree(folder)
        sys.exit("There is no CUDA GPU that PyTorch sees; --dry-run goes through the same code on the CPU.")
    device = "cpu" if dry else "cuda"
    shapes = {"small": models.TINY, "large": models.TINY} if dry else {"small": models.SMALL, "large": LLAMA_3_8B}
    for name, shape in shapes.items():
        isolated_call.call("benchmarks.acceptance.models:save_model", shape, f"{folder}/{name}", device, env=lease.env)
    models.write_rows(folder / "rows.jsonl")
    present = len(gpus.visible())
    print(
        json.dumps({key: seen.get(key) for key in ("gpu", "capability", "torch", "cuda", "cudnn")} | {"gpus": present})
    )
    return Bench(folder=folder, device=device, capacity_bytes=seen.get("capacity_bytes", 0), gpus=present)


if __name__ == "__main__":
    main()
