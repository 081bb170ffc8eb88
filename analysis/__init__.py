"""The Python API of results: `load_study`, `decide`. Never imports torch; of `sweep`, only modules without training.

Nothing heavy is imported before a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.loading.study import Study
    from analysis.reporting.report import Report


def load_study(name: str, *, uri: str | None = None, experiment: str = "paretune") -> Study:
    """A study with its runs; `Study.runs` is a DataFrame with one row for each run.

    Args:
        name: Name of the study.
        uri: MLflow's tracking URI; the default is `mlflow.db` in the working folder.
        experiment: Name of the experiment in MLflow.

    Raises:
        UserError: if the store, the experiment or the study does not exist.
    """
    from analysis.loading.mlflow_store import StudyReader

    return StudyReader(uri or f"sqlite:///{Path('mlflow.db').absolute()}", experiment).study(name)


def decide(
    study: Study,
    *,
    threshold: float = 0.99,
    margin: float | None = None,
    memory_metric: str = "peak_memory_bytes",
    direction: str | None = None,
    cluster: str | None = None,
    price: float = 2.0,
    allow_different: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> Report:
    """The selected setting and the chances of each setting; the arguments are the options of `python -m analysis`.

    Raises:
        UserError: if the runs are not comparable, or nothing can be decided.
    """
    from analysis.pipeline import build

    return build(
        study,
        threshold,
        margin,
        memory_metric,
        allow_different=allow_different,
        direction=direction,
        cluster=cluster,
        price=price,
        packages=packages,
    )
