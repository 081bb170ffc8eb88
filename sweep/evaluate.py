"""`python -m sweep.evaluate adapters=[…]`: load several adapters onto one base, and compare their scores."""

from __future__ import annotations

from collections.abc import Iterator

import hydra
from omegaconf import DictConfig, OmegaConf

from sweep.cli import app
from sweep.config.schema import plain_config
from sweep.core.errors import ConfigError, Fault, UserError
from sweep.core.paths import CONF
from sweep.deployment.comparison_options import parse


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def application(composed: DictConfig) -> None:
    try:
        comparison = parse(plain_config(composed))
        from sweep.launch import device_locks, preload

        with device_locks.this_process():
            preload.initialise()
            from sweep.deployment import adapter_comparison

            print(adapter_comparison.table(adapter_comparison.compare(comparison)))
    except UserError as error:
        app.exit_with_error(error)


def validate(composed: DictConfig, multirun: bool) -> Iterator[Fault]:
    """The faults of the options, before anything is read."""
    if multirun:
        yield Fault("-m", "", "is not supported here: name the adapters in one list")
    if OmegaConf.is_missing(composed, "adapters"):
        yield Fault("adapters", "", "is missing; name folders: 'adapters=[exports/a,exports/b]'")
        return
    try:
        parse(plain_config(composed))
    except ConfigError as error:
        yield from error.faults


def main() -> None:
    app.run_command(application, CONF, "evaluate", validate)


if __name__ == "__main__":
    main()
