"""Studies in a real SQLite store, written as the coordinator writes them, without any training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow
from mlflow import MlflowClient
from pyarrow import parquet

from sweep.core.artifacts import EXAMPLES_FILE
from sweep.core.record import Outcome, Record
from sweep.tracking.mlflow_store import MlflowStore

CONDITIONS = {"train.max_steps": "60", "device": "a CPU", "version.torch": "2.13.0"}


@cache
def _empty() -> bytes:
    """An MLflow database without experiments, made once: its migrations take seconds."""
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        return Path(folder, "mlflow.db").read_bytes()


@dataclass
class Written:
    """A store in a folder, and how to write a study into it."""

    folder: Path
    experiment: str = "paretune"
    store: MlflowStore = field(init=False)

    def __post_init__(self) -> None:
        Path(self.folder, "mlflow.db").write_bytes(_empty())
        self.store = MlflowStore(self.uri, self.experiment, str(self.folder / "artifacts"))

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def study(
        self,
        name: str,
        runs: Sequence[Record],
        finished: bool = True,
        examples: bool = True,
        params: Mapping[str, Mapping[str, str]] | None = None,
    ) -> str:
        """The id of its parent run. Scores become right and wrong answers to 200 questions, drawn by the run's seed.
        `params` are by setting."""
        parent = self.store.create_study(name, CONDITIONS, {"command": f"python -m sweep -m study.name={name}"})
        for record in runs:
            own = (params or {}).get(record.setting, {})
            row = self.store.open_run(record, parent.info.run_id, {"seed": str(record.seed), **own}, {})
            for step in range(1, 21):
                row.metrics(step, {"train/loss": 2.0 / step + 0.01 * record.seed})
            files = []
            if examples and record.outcome is Outcome.OK:
                files = [_examples(self.folder / EXAMPLES_FILE, record)]
            row.close(record, files)
        if finished:
            self.store.close_study(parent.info.run_id, "FINISHED")
        return str(parent.info.run_id)


def record(
    setting: str,
    seed: int,
    score: float | None = None,
    memory: float | None = None,
    outcome: Outcome = Outcome.OK,
    reason: str = "",
    conditions: Mapping[str, str] = CONDITIONS,
    **measurements: float,
) -> Record:
    """One run, as it ended."""
    known = {
        "score": score,
        "eval/exact_match": score,
        "peak_memory_bytes": memory,
        "max_memory_allocated": memory,
        **measurements,
    }
    return Record(
        variant=setting.partition(" ")[0],
        setting=setting,
        seed=seed,
        outcome=outcome,
        reason=reason,
        study="s",
        conditions_hash=str(abs(hash(json.dumps(dict(conditions))))),
        measurements={key: value for key, value in known.items() if value is not None},
        facts={
            "metric": "exact_match",
            "direction": "maximize",
            "memory_source": "cuda_allocator",
            "device": "a CPU",
            "commit": "0123456789ab",
            "conditions": json.dumps(dict(conditions)),
        },
    )


def _examples(path: Path, run: Record) -> Path:
    count = 200
    right = round(run.measurements["score"] * count)
    hard = np.random.default_rng(0).random(count)  # the same questions are hard for all
    noise = np.random.default_rng(run.seed + 1000 * len(run.setting)).random(count)
    answers = np.zeros(count)
    answers[np.argsort(hard + 0.3 * noise)[:right]] = 1.0
    parquet.write_table(pyarrow.table({"index": np.arange(count), "exact_match": answers}), path)
    return path
