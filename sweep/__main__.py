"""`python -m sweep`: one run, or with `-m` a study. Nothing heavy is imported before the config is known to be good."""

from __future__ import annotations

import hydra

from sweep.cli import app
from sweep.cli.validation import validate
from sweep.core.paths import CONF
from sweep.launch.hydra_task import task

application = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)


def main() -> None:
    app.run_command(application, CONF, "config", validate)


if __name__ == "__main__":
    main()
