"""`python -m sweep.export study=NAME`: export a run's adapter or merged model, and check its score."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from sweep.cli import app
from sweep.core import preflight, program
from sweep.core.errors import Fault, UserError
from sweep.core.paths import CONF
from sweep.tracking.options import Tracking

DTYPES = ("auto", "fp32", "bf16", "fp16")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def application(composed: DictConfig) -> None:
    options = typing.cast(dict, OmegaConf.to_container(composed, resolve=True))
    try:
        from sweep.launch import device_locks, preload

        with device_locks.this_process():
            preload.initialise()
            from sweep.deployment import exporter

            print(exporter.summary(exporter.export(options, Tracking(**options["tracking"]))))
    except UserError as error:
        app.exit_with_error(error)


def validate(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """The faults of the options, before anything is read."""
    if multirun:
        yield Fault("-m", "", "is not supported here: one run is exported at a time")
    if composed.study is None and composed.run is None:
        yield Fault("study", "null", f"is missing; name one: {program.command('export')} study=quickstart, or run=<id>")
    for key in ("study", "run", "base", "base_revision", "out", "register"):
        if not isinstance(composed[key], str | None):
            yield Fault(key, str(composed[key]), "must be text, or null")
    for key in ("merge", "allow_drop", "trust_remote_code"):
        if not isinstance(composed[key], bool):
            yield Fault(key, str(composed[key]), "must be true or false")
    yield from _code_faults(composed)
    if composed.dtype not in DTYPES:
        yield Fault("dtype", str(composed.dtype), f"must be one of {', '.join(DTYPES)}")
    if isinstance(composed.out, str):
        yield from preflight.output_fault("out", composed.out)
    yield from preflight.store_fault("tracking.uri", str(composed.tracking.uri))


def _code_faults(composed: DictConfig) -> Iterator[Fault]:
    """Others may write the store, so this command says whose code may run."""
    base, packages = composed.base, composed.packages
    if composed.trust_remote_code is True and base is None:
        yield Fault("base", "null", "is missing: trust_remote_code=true runs code of the base, so name the base")
    elif composed.trust_remote_code is True and composed.base_revision is None and not Path(str(base)).is_dir():
        yield Fault("base_revision", "null", "is missing: trust_remote_code=true runs code of this commit of the base")
    if not isinstance(packages, ListConfig) or not all(isinstance(name, str) and name.strip() for name in packages):
        yield Fault("packages", str(packages), "must be a list of names: packages=[my_package]")


def main() -> None:
    app.run_command(application, CONF, "export", validate)


if __name__ == "__main__":
    main()
