"""An exported model as a version in MLflow's model registry."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import mlflow.transformers
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from transformers import AutoTokenizer

from sweep.core import provenance, redaction
from sweep.core.errors import UserError, first_line
from sweep.deployment.model_card import ExportedModel
from sweep.tracking.mlflow_reader import MlflowReader

_PIPELINES = {"CAUSAL_LM": "text-generation", "SEQ_CLS": "text-classification"}


def register(store: MlflowReader, exported: ExportedModel, name: str) -> str:
    """Register the export under `name`, and return the URI of its version ("models:/name/3"), or raise UserError.

    A whole model is stored in MLflow's format, for `mlflow.transformers.load_model(uri)`. An adapter is stored
    unchanged: `PeftModel.from_pretrained(base, mlflow.artifacts.download_artifacts(uri))`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="paretune-register-") as scratch:
            folder = exported.folder if exported.is_adapter else _as_mlflow_model(exported, Path(scratch, "model"))
            place = "export/adapter" if exported.is_adapter else "export/model"
            store.client.log_artifacts(exported.run.run_id, str(folder), place)
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        root = store.client.get_run(exported.run.run_id).info.artifact_uri
        version = store.client.create_model_version(
            name,
            source=f"{root}/{place}",
            run_id=exported.run.run_id,
            tags={"setting": exported.run.record.setting, "score": f"{exported.difference.after:.6g}"},
            description=exported.note or None,
        )
    except MlflowException as error:
        raise UserError(
            f"register = {name} cannot be registered in {redaction.text(store.uri)}: {first_line(error)}"
        ) from error
    return f"models:/{name}/{version.version}"


def _as_mlflow_model(exported: ExportedModel, folder: Path) -> Path:
    """Write the model in MLflow's format. It is loaded first: MLflow (3.17) cannot read a folder of transformers 5."""
    task = exported.run.config.task
    if task.task_type not in _PIPELINES:
        raise UserError(f"register: MLflow has no pipeline for {task.task_type} models; register the adapter instead")
    versions = provenance.versions()
    # Its warnings are about a page on the Hub, which an export does not have, and about its own type hints.
    logging.getLogger("mlflow.transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*type hint is inferred as AnyType", category=UserWarning)
        mlflow.transformers.save_model(
            {
                "model": task.auto_class().from_pretrained(exported.folder),
                "tokenizer": AutoTokenizer.from_pretrained(exported.folder),
            },
            str(folder),
            task=_PIPELINES[task.task_type],
            pip_requirements=[f"{name}=={versions[name].partition('+')[0]}" for name in ("torch", "transformers")],
        )
    return folder
