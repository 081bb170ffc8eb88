"""Whether a run should stop, asked by every run at each of its evaluations."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweep.core.errors import UserError, first_line
from sweep.core.record import Record
from sweep.study.objectives.base import Objective
from sweep.study.pruning.dominance import Point, Run, dominated
from sweep.study.search import samplers
from sweep.study.storage import STORAGE_FAILS
from sweep.study.trial_store import TrialStore

log = logging.getLogger(__name__)
DOMINANCE = "dominance"
_CURVE = "curve:"


class PruningService:
    """Stores each run's evaluations in its trial, under `curve:<seed>`, where other coordinators read them, and decides
    whether a run should stop. `pruner` is "dominance", or in a study of one objective the config of a pruner of Optuna.
    UserError if it does not fit the study."""

    def __init__(self, pruner: Any, trials: TrialStore, objective: Objective):
        self._trials = trials
        self._higher_is_better = objective.directions[0] == "maximize"
        self._lock = threading.Lock()
        self._dominance = pruner == DOMINANCE
        if self._dominance:
            return
        if len(objective.directions) > 1:
            raise UserError(
                f"hydra.sweeper.pruner = {pruner}: Optuna's pruners support one objective only, and this study has "
                f"two; take {DOMINANCE}, or hydra.sweeper.direction={objective.directions[0]} for the score alone"
            )
        self._optuna = samplers.create(pruner, optuna.pruners.BasePruner, "hydra.sweeper.pruner")

    def should_prune(
        self, record: Record, step: int, score: float, error: float, memory_bytes: float | None
    ) -> str | None:
        """The reason why the run should stop at this optimizer step, or None. `error` is the score's standard error,
        `memory_bytes` the run's peak in training so far."""
        if record.trial is None:
            return None
        try:
            return self._decide(record, step, score, error, memory_bytes)
        except STORAGE_FAILS as failure:
            log.warning("%s is not compared at step %d: %s", record.name, step, first_line(failure))
            return None

    def _decide(self, record: Record, step: int, score: float, error: float, memory_bytes: float | None) -> str | None:
        with self._lock:
            frozen = self._trials.all()[record.trial]
            # A curve may be that of an earlier run of this replicate, whose steps are then higher.
            curve = _points(frozen.user_attrs.get(f"{_CURVE}{record.seed}", {}))
            before = [point for point in curve if point.step < step]
            points = [*before, Point(step, score, error)]
            content = {"points": [list(point) for point in points], "memory_bytes": memory_bytes}
            self._trials.set_attributes(record.trial, {f"{_CURVE}{record.seed}": content})
            if not self._dominance:
                return self._ask_optuna(frozen, step, score)
            own = Run(record.name, points, math.inf if memory_bytes is None else memory_bytes)
            others = [run for trial in self._trials.all() if trial.number != record.trial for run in runs_of(trial)]
            return dominated(own, others, higher_is_better=self._higher_is_better)

    def _ask_optuna(self, frozen: FrozenTrial, step: int, score: float) -> str | None:
        """The reason of Optuna's pruner, or None. The replicate that reports a step first speaks for the trial."""
        if step in frozen.intermediate_values:
            return None
        self._trials.report(frozen.number, step, score)
        if self._optuna.prune(self._trials.study, self._trials.all()[frozen.number]):
            return f"{type(self._optuna).__name__} of Optuna, at step {step}"
        return None


def runs_of(trial: FrozenTrial) -> list[Run]:
    """A trial's replicates with their evaluations so far."""
    if trial.state is TrialState.FAIL:
        return []
    name = str(trial.user_attrs.get("setting", trial.number))
    found = []
    for key, content in trial.user_attrs.items():
        if key.startswith(_CURVE) and content.get("memory_bytes") is not None:
            points = _points(content)
            found.append(Run(f"{name} · seed {key.removeprefix(_CURVE)}", points, content["memory_bytes"]))
    return found


def _points(content: Mapping[str, Any]) -> list[Point]:
    return [Point(int(step), float(score), float(error)) for step, score, error in content.get("points", [])]
