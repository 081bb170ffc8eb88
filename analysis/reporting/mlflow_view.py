"""A saved view of MLflow's experiment page: score against memory as a scatter over a study's runs.

MLflow keeps a shared view in a tag of the experiment and opens it by a key in the link. The form is not documented; it
is the one of 3.17, read from its page's source and seen to work in a browser. Where it does not hold, the page opens
with its own defaults: nothing else depends on it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Any
from urllib.parse import urlencode

_TAG = "mlflow.sharedViewState."
_MAJOR = "3"
_LIMIT = 5000  # characters of a tag's value
_SECTION = "paretune"


def share_key(study: str) -> str:
    """Names a study's view in the link."""
    return f"paretune-{hashlib.sha256(study.encode()).hexdigest()[:16]}"


def tags(study: str, parent_id: str, metric: str, memory_metric: str, version: str) -> dict[str, str]:
    """The experiment's tag that holds the view; none for a version of MLflow that is not known to read it."""
    if version.partition(".")[0] != _MAJOR:
        return {}
    packed = zlib.compress(json.dumps(_state(parent_id, metric, memory_metric)).encode(), 9)
    value = f"deflate;{base64.b64encode(packed).decode()}"
    return {f"{_TAG}{share_key(study)}": value} if len(value) <= _LIMIT else {}


def link(base: str, experiment_id: str, study: str) -> str:
    """Where the view opens; without `workflowType` the page for GenAI would, which shows no runs."""
    query = {"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": share_key(study)}
    return f"{base}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def run_link(base: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _state(parent_id: str, metric: str, memory_metric: str) -> dict[str, Any]:
    costs = [(memory_metric, f"{metric} against peak memory"), ("train_seconds", f"{metric} against training time"),
             ("tokens_per_second", f"{metric} against tokens per second")]  # fmt: skip
    columns = [f"metrics.`{key}`" for key in ("score", memory_metric, "train_seconds", "tokens_per_second")]
    columns += [f"tags.`{key}`" for key in ("outcome", "verdict", "selected")]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}'",
        "orderByKey": "tags.`mlflow.runName`",  # in any other order than by time, runs are not folded below the study
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [_scatter(i, key, name) for i, (key, name) in enumerate(costs)],
        "compareRunSections": [
            {"uuid": _SECTION, "name": "Score against costs", "display": True, "isReordered": False, "deleted": False,
             "isGenerated": False, "columns": 2, "cardHeight": 400}
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "groupBy": None,
    }  # fmt: skip


def _scatter(number: int, cost: str, name: str) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"paretune-{number}",
        "metricSectionId": _SECTION,
        "displayName": name.replace("_", " "),
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        "xaxis": {"key": cost, "type": "METRIC"},
        "yaxis": {"key": "score", "type": "METRIC"},
    }
