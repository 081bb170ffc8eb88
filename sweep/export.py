"""`python -m sweep.export study=NAME`: export a run's adapter or merged model, and check its score."""

from __future__ import annotations

import typing
from collections.abc import Iterator

import hydra
from omegaconf import DictConfig, OmegaConf

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
    for key in ("study", "run", "base", "out", "register"):
        if not isinstance(composed[key], str | None):
            yield Fault(key, str(composed[key]), "must be text, or null")
    for key in ("merge", "allow_drop"):
        if not isinstance(composed[key], bool):
            yield Fault(key, str(composed[key]), "must be true or false")
    if composed.dtype not in DTYPES:
        yield Fault("dtype", str(composed.dtype), f"must be one of {', '.join(DTYPES)}")
    if isinstance(composed.out, str):
        yield from preflight.output_fault("out", composed.out)
    yield from preflight.store_fault("tracking.uri", str(composed.tracking.uri))


def main() -> None:
    app.run_command(application, CONF, "export", validate)


if __name__ == "__main__":
    main()
