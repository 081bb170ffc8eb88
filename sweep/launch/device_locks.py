"""A lock for each GPU, so that two runs of this machine never use one GPU at a time: those of two studies, or of the
workers of joblib.

The lock is on a file that has the GPU's UUID in its name (flock). The operating system releases it when its process
ends, in whatever way.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sweep.core.errors import UserError
from sweep.launch.device_leases import Lease, leases

log = logging.getLogger(__name__)
# One folder for all users and all studies: TMPDIR may differ between them.
FOLDER = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
POLL_SECONDS = 1.0


def acquire(lease: Lease) -> ExitStack | None:
    """Lock all GPUs of the lease until the returned stack is closed; None if another run uses one of them."""
    held = ExitStack()
    for gpu in () if lease.shared else lease.gpus:
        descriptor = _locked(FOLDER / f"paretune-{gpu.id}.lock")
        if descriptor is None:
            held.close()
            return None
        held.callback(os.close, descriptor)
    return held


@contextmanager
def first_free(candidates: Sequence[Lease]) -> Iterator[Lease]:
    """The first of these leases whose GPUs no other run uses. Waits for one."""
    for count, lease in enumerate(itertools.cycle(candidates)):
        held = acquire(lease)
        if held is not None:
            with held:
                yield lease
            return
        if count == 0:
            say_that_it_waits(lease)
        time.sleep(POLL_SECONDS / len(candidates))


@contextmanager
def this_process() -> Iterator[Lease]:
    """One free GPU for this process, which has not used CUDA yet."""
    with first_free(leases()) as lease:
        os.environ.update(lease.env)
        yield lease


def say_that_it_waits(lease: Lease) -> None:
    log.info(
        "%s is in use by another run of paretune: waiting until a GPU is free. hydra.launcher.share_devices=true would "
        "not wait.", lease,
    )  # fmt: skip


def _locked(file: Path) -> int | None:
    """A descriptor that holds the lock of the file; None if another process holds it. The file stays: a lock on a file
    that was deleted excludes nobody."""
    while True:
        descriptor = _open(file)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == os.stat(file).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:  # deleted between the opening and the lock
            pass
        os.close(descriptor)


def _open(file: Path) -> int:
    try:
        with suppress(FileNotFoundError):
            return os.open(file, os.O_RDONLY)  # Linux refuses O_CREAT for a file of another user in such a folder
        with suppress(FileExistsError):
            descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
            os.fchmod(descriptor, 0o644)  # readable for all users, whatever the umask
            return descriptor
        return os.open(file, os.O_RDONLY)
    except OSError as error:
        raise UserError(
            f"the lock of a GPU, {file}, cannot be opened: {error.strerror}; delete the file, or take "
            "hydra.launcher.share_devices=true"
        ) from error
