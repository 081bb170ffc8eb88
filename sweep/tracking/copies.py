"""Copies of a run's metrics for other tools (`tracking.also`). MLflow is the record: a copy that fails ends no run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweep.core import redaction
from sweep.core.errors import described
from sweep.core.record import Outcome, Record

if TYPE_CHECKING:
    from sweep.tracking.mlflow_store import RunLog

log = logging.getLogger(__name__)


class Copy(Protocol):
    """Receives what MLflow receives."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values at an optimizer step."""

    def close(self, record: Record) -> None:
        """The run has ended."""


class JsonLines:
    """`metrics.jsonl` in the run's folder: a line for the values of each step, and a last line with the record."""

    def __init__(self, record: Record, folder: Path, config: Mapping[str, Any], experiment: str):
        self._path = folder / "metrics.jsonl"
        self._path.write_text("")  # of an earlier attempt

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._write({"step": step, **{key: value if math.isfinite(value) else None for key, value in values.items()}})

    def close(self, record: Record) -> None:
        self._write({"record": redaction.tree(record.as_dict())})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class TensorBoard:
    """An event file in the folder `tensorboard/` of the run. `tensorboard --logdir outputs` shows all runs."""

    def __init__(self, record: Record, folder: Path, config: Mapping[str, Any], experiment: str):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self, record: Record) -> None:
        self.metrics(int(record.measurements.get("train/steps", 0)), record.measurements)
        self._writer.close()


class WandB:
    """A run in Weights & Biases, in the group of its study. It uses the login of this machine."""

    def __init__(self, record: Record, folder: Path, config: Mapping[str, Any], experiment: str):
        import wandb

        self._run = wandb.init(
            project=experiment,
            group=record.study,
            name=record.name,
            config=redaction.tree(dict(config)),
            dir=str(folder),
            reinit="create_new",  # several runs of one process
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, record: Record) -> None:
        self._run.summary.update({**record.measurements, "outcome": str(record.outcome)})
        self._run.finish(exit_code=0 if record.outcome is Outcome.OK else 1)


KINDS = {"jsonl": JsonLines, "tensorboard": TensorBoard, "wandb": WandB}


class CopiedLog:
    """A run's row in MLflow, and copies of it."""

    def __init__(
        self,
        row: RunLog,
        record: Record,
        kinds: Sequence[str],
        folder: Path,
        config: Mapping[str, Any],
        experiment: str,
    ):
        self._row = row
        self._name = record.name
        self._copies: dict[str, Copy] = {}
        for kind in kinds:
            try:
                self._copies[kind] = KINDS[kind](record, folder, config, experiment)
            except Exception as error:  # noqa: BLE001  whatever another library raises
                self._give_up(kind, error)

    @property
    def run_id(self) -> str | None:
        return self._row.run_id

    def hold(self, folder: Path) -> None:
        """`RunLog.hold`."""
        self._row.hold(folder)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._row.metrics(step, values)
        for kind, copy in list(self._copies.items()):
            try:
                copy.metrics(step, values)
            except Exception as error:  # noqa: BLE001
                self._give_up(kind, error)

    def close(self, record: Record, artifacts: Sequence[Path]) -> None:
        for kind, copy in list(self._copies.items()):
            try:
                copy.close(record)
            except Exception as error:  # noqa: BLE001
                self._give_up(kind, error)
        self._row.close(record, artifacts)

    def _give_up(self, kind: str, error: Exception) -> None:
        self._copies.pop(kind, None)
        log.warning("%s: the copy for %s ends here: %s", self._name, kind, redaction.text(described(error)))
