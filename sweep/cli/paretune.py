"""The script `paretune COMMAND`: the commands of `python -m`, also where a project has its own `sweep` or `analysis`.

A script does not import from the current folder. Here that folder comes last, so that components of the project are
found, and packages of this program are never hidden by those of the project.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version

from sweep.core.errors import alternatives
from sweep.core.program import MODULES, called_as

MEANINGS = {
    "sweep": "one run, or with -m a study",
    "plan": "the predicted memory of every setting; nothing is launched",
    "analyze": "the answer and the report of a study",
    "export": "an adapter or a merged model of a run, with a check of its score",
    "evaluate": "several exported adapters side by side",
    "ui": "the MLflow UI for the studies of this folder",
}


def main() -> None:
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(_help())
    elif given[0] == "--version":
        print(f"paretune {version('paretune')}")
    elif given[0] in MODULES:
        called_as(f"paretune {given[0]}")
        sys.argv = [sys.argv[0], *given[1:]]
        sys.path.append(os.getcwd())
        importlib.import_module(_entry(given[0])).main()
    else:
        print(f"paretune {given[0]}: unknown command; {alternatives(given[0], list(MODULES))}", file=sys.stderr)
        raise SystemExit(2)


def _entry(command: str) -> str:
    module = MODULES[command]
    return module if "." in module else f"{module}.__main__"


def _help() -> str:
    width = max(map(len, MEANINGS))
    lines = [f"  {name:{width}}  {meaning}" for name, meaning in MEANINGS.items()]
    return "\n".join(["paretune COMMAND …", "", *lines, "", "paretune COMMAND --help describes a command."])
