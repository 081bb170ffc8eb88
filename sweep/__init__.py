"""The Python API of runs: `predict_memory` of a config, `run_study`. Nothing heavy is imported before a call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.hydra_compat.composer import Composer
    from sweep.memory import Machine, Prediction, Unpredictable


def predict_memory(
    config: Sequence[str] | Mapping[str, Any], machine: Machine | None = None
) -> Prediction | Unpredictable:
    """The peak memory of one run, in bytes. It needs no GPU and no weights, and takes seconds.

    Args:
        config: Overrides as on the command line, or a complete config (the `config.yaml` of a run).
        machine: Device of the run. The default is a GPU of compute capability 8.0.

    Raises:
        ConfigError: with all faults of the config.
    """
    from sweep.config.schema import parse, plain_config
    from sweep.memory import Machine, predict

    if not isinstance(config, Mapping):
        with _composer() as composer:
            config = plain_config(composer.compose(config, multirun=False))
    parse(config)
    return predict([config], machine or Machine(kind="cuda", capability=(8, 0)))[0]


def run_study(overrides: Sequence[str]) -> str:
    """Run `python -m sweep -m` with these overrides in the working folder, and wait for its end.

    The study has an interpreter of its own, since Hydra configures the logging and the signals of a whole process.

    Returns:
        The name of the study, for `analysis.load_study`.

    Raises:
        UserError: if the command fails. Its output has the reason.
    """
    from sweep.core.errors import UserError

    with _composer() as composer:
        composed = composer.compose(overrides, multirun=True)
        name = str(composed.hydra.sweeper.study_name or composed.study.name)
    status = subprocess.run([sys.executable, "-m", "sweep", "-m", *overrides], check=False).returncode
    if status:
        raise UserError(f"python -m sweep -m ended with exit code {status}; its output has the reason")
    return name


def _composer() -> Composer:
    from sweep.core.paths import CONF
    from sweep.hydra_compat.composer import Composer

    return Composer(CONF, None, "config")
