"""Memory foretold before a run is launched: for the order of a study, and to leave out what cannot fit."""

from __future__ import annotations

import json
import logging
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweep.core import formatting
from sweep.memory import Prediction, Unpredictable, predict
from sweep.memory.prediction import OF_SEED
from sweep.memory.prediction_metrics import machine_here

if TYPE_CHECKING:
    from sweep.config.schema import Study
    from sweep.core.record import Record

log = logging.getLogger(__name__)
# Runs of this study, after which its own error is known better than the declared one.
_ENOUGH = 3
_ELSEWHERE = ("seed", "study", "tracking", "meters")  # parts of a config that no byte hangs on


class MemoryForecaster:
    """Predictions by config, each made once, and corrected by what this process has measured since. Runs that differ by
    their seed alone share one, unless the seed decides which part of the data they meet.

    The correction is the median of measured / predicted over the runs of one memory meter; it is applied from the third
    run on.
    """

    def __init__(self) -> None:
        self._known: dict[str, Prediction | Unpredictable] = {}
        self._executed: dict[str, Prediction | Unpredictable] = {}
        self._ratios: list[float] = []
        self._lock = threading.Lock()
        self.machine = machine_here()

    def predict_all(self, configs: Sequence[Mapping[str, Any]]) -> list[Prediction | None]:
        """One prediction per resolved config, None where there can be none; new ones are made in one go."""
        with self._lock:
            new = {}
            for config in configs:
                if self._answer(config) is None:
                    new.setdefault(_key(config, with_seed=True), config)
            if new:
                answers = predict(list(new.values()), self.machine, self._executed)
                for (key, config), found in zip(new.items(), answers, strict=True):
                    self._known[key] = found
                    self._known.setdefault(_key(config), found)
                    if isinstance(found, Unpredictable):
                        log.info("memory cannot be foretold: %s", found.reason)
            found = [self._answer(config) for config in configs]
        return [one if isinstance(one, Prediction) else None for one in found]

    def _answer(self, config: Mapping[str, Any]) -> Prediction | Unpredictable | None:
        """The run's own, or else that of another seed, where seeds do not matter."""
        own = self._known.get(_key(config, with_seed=True))
        other = self._known.get(_key(config))
        if own is None and isinstance(other, Prediction) and OF_SEED in other.assumptions:
            return None
        return own or other

    def predict(self, config: Mapping[str, Any]) -> Prediction | None:
        [found] = self.predict_all([config])
        return found

    def update_correction(self, record: Record) -> None:
        """How far off a prediction was."""
        predicted = record.measurements.get("memory/predicted_bytes")
        measured = record.measurements.get("max_memory_allocated")
        if not predicted or not measured:
            return
        with self._lock:
            self._ratios.append(measured / predicted)
            if len(self._ratios) == _ENOUGH:
                off = max(abs(ratio - 1) for ratio in self._ratios)
                much = abs(self.correction - 1) > 0.005
                then = f"; from here on predictions are multiplied by {self.correction:.3f}" if much else ""
                log.info("Memory of the first %d runs was predicted within %.1f%%%s.", _ENOUGH, 100 * off, then)

    @property
    def correction(self) -> float:
        """What predictions are multiplied by."""
        return statistics.median(self._ratios) if len(self._ratios) >= _ENOUGH else 1.0

    def skip_reason(self, prediction: Prediction | None, study: Study) -> str | None:
        """Why a run would be out of memory for certain: more than the device has, or than the study's budget, by more
        than the prediction's declared error. None where it may fit, or `study.launch_despite_prediction` says to
        try."""
        if prediction is None or study.launch_despite_prediction:
            return None
        needed = prediction.allocated_bytes * self.correction
        least = needed * (1 - prediction.relative_band)
        limits = {"the device has": self.machine.capacity_bytes, "the budget is": study.memory_budget_bytes}
        for words, limit in limits.items():
            if limit is not None and least > limit:
                return (
                    f"predicted: training needs {formatting.gib(needed)} ± {prediction.relative_band:.1%}, and {words} "
                    f"{formatting.gib(limit)}. Not launched; study.launch_despite_prediction=true tries all the same"
                )
        return None


def _key(config: Mapping[str, Any], with_seed: bool = False) -> str:
    kept = {key: value for key, value in config.items() if key not in _ELSEWHERE or (with_seed and key == "seed")}
    variant = {key: value for key, value in config["variant"].items() if key not in ("name", "learning_rate")}
    return json.dumps({**kept, "variant": variant}, sort_keys=True, default=str)
