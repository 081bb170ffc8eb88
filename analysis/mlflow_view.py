"""A saved view of MLflow's experiment page: to be filled."""

from __future__ import annotations

from analysis.report import Report


def tags(made: Report, version: str, experiment_id: str) -> dict[str, str]:
    return {}
