"""The command line around Hydra's: it reports all faults of a config at once, before a heavy import and before a file
is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sweep.cli.validation import Validate, check
from sweep.core import redaction
from sweep.core.errors import ConfigError, Fault, UserError
from sweep.core.masked_stream import masked_output
from sweep.hydra_compat import composer

FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = 130  # the shell's code for Ctrl-C


def run_command(application: Callable[[], Any], conf: Path, config_name: str, validate: Validate) -> None:
    """Check the config that the command line asks for, then let Hydra run the application. Secrets are masked in all
    that is printed.

    `--info` and completion belong to Hydra and are not checked. `--cfg` shows the config before its faults.
    """
    with masked_output():
        _run_command(application, conf, config_name, validate)


def _run_command(application: Callable[[], Any], conf: Path, config_name: str, validate: Validate) -> None:
    args = composer.command_line()
    shows_only = args.hydra_help or args.info or args.shell_completion
    unchecked = shows_only or args.experimental_rerun
    folder = conf if args.config_path is None else Path(args.config_path)
    try:
        if args.help:
            with composer.Composer(folder, args.config_dir, args.config_name or config_name) as composing:
                composing.print_help(args)
            raise SystemExit(0)
        if args.multirun and (args.cfg or args.info):
            raise ConfigError([Fault("--multirun", "", "cannot go with --cfg or --info, which show one config")])
        if not (unchecked or args.cfg):
            check(folder, args, config_name, validate)
        application()
        if args.cfg and not unchecked:
            check(folder, args, config_name, validate)
    except UserError as error:
        exit_with_error(error)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues where it stopped.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def exit_with_error(error: UserError) -> NoReturn:
    """Print the error and exit. With HYDRA_FULL_ERROR=1, raise it with its traceback."""
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    print(redaction.text(str(error)), file=sys.stderr)
    raise SystemExit(error.exit_code)
