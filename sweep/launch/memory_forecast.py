"""Memory predictions before a run is launched: for the order of a study, and to skip runs that cannot fit."""

from __future__ import annotations

import json
import logging
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweep.core import formatting
from sweep.memory import Machine, Prediction, Unpredictable, predict
from sweep.memory.prediction import OF_SEED

if TYPE_CHECKING:
    from sweep.config.schema import Study
    from sweep.core.record import Record

log = logging.getLogger(__name__)
_ENOUGH = 3  # after so many runs, their errors are a better estimate than the declared error
_NO_EFFECT = ("seed", "study", "tracking", "meters")  # parts of a config that do not change memory


class MemoryForecaster:
    """Predictions by config for the device of the runs, each made once, and corrected by the measurements of this
    process.

    Runs that differ only by their seed share a prediction, unless the seed selects a part of the data. The correction
    is the median of measured / predicted over the runs of one memory meter, from the third run on.
    """

    def __init__(self, machine: Machine) -> None:
        self._known: dict[str, Prediction | Unpredictable] = {}
        self._executed: dict[str, Prediction | Unpredictable] = {}
        self._ratios: list[float] = []
        self._lock = threading.Lock()
        self.machine = machine

    def predict_all(self, configs: Sequence[Mapping[str, Any]]) -> list[Prediction | None]:
        """One prediction per resolved config, None if none is possible. New predictions are made by one call."""
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
                        log.info("memory cannot be predicted: %s", found.reason)
            found = [self._answer(config) for config in configs]
        return [one if isinstance(one, Prediction) else None for one in found]

    def _answer(self, config: Mapping[str, Any]) -> Prediction | Unpredictable | None:
        """The run's own prediction, or that of another seed if the seed does not matter."""
        own = self._known.get(_key(config, with_seed=True))
        other = self._known.get(_key(config))
        if own is None and isinstance(other, Prediction) and OF_SEED in other.assumptions:
            return None
        return own or other

    def predict(self, config: Mapping[str, Any]) -> Prediction | None:
        [found] = self.predict_all([config])
        return found

    def update_correction(self, record: Record) -> None:
        predicted = record.measurements.get("memory/predicted_bytes")
        measured = record.measurements.get("max_memory_allocated")
        if not predicted or not measured:
            return
        with self._lock:
            self._ratios.append(measured / predicted)
            if len(self._ratios) == _ENOUGH:
                error = max(abs(ratio - 1) for ratio in self._ratios)
                corrected = abs(self.correction - 1) > 0.005
                then = f"; from now on predictions are multiplied by {self.correction:.3f}" if corrected else ""
                log.info("Memory of the first %d runs was predicted within %.1f%%%s.", _ENOUGH, 100 * error, then)

    @property
    def correction(self) -> float:
        return statistics.median(self._ratios) if len(self._ratios) >= _ENOUGH else 1.0

    def skip_reason(self, prediction: Prediction | None, study: Study) -> str | None:
        """The reason why a run would certainly be out of memory: it needs more than the device or the study's budget
        has, by more than the declared error of the prediction. None if it may fit, or with
        `study.launch_despite_prediction`."""
        if prediction is None or study.launch_despite_prediction:
            return None
        allocated = prediction.allocated_bytes * self.correction
        limits = (  # paged state can leave the device; the budget is for all memory
            ("the device has", self.machine.capacity_bytes, allocated),
            ("the budget is", study.memory_budget_bytes, allocated + prediction.paged_bytes),
        )
        for owner, limit, needed in limits:
            if limit is not None and needed * (1 - prediction.relative_band) > limit:
                return (
                    f"predicted: training needs {formatting.gib(needed)} ± {prediction.relative_band:.1%}, and {owner} "
                    f"{formatting.gib(limit)}. Not launched; study.launch_despite_prediction=true launches it anyway"
                )
        return None


def _key(config: Mapping[str, Any], with_seed: bool = False) -> str:
    kept = {key: value for key, value in config.items() if key not in _NO_EFFECT or (with_seed and key == "seed")}
    variant = {key: value for key, value in config["variant"].items() if key not in ("name", "learning_rate")}
    return json.dumps({**kept, "variant": variant}, sort_keys=True, default=str)
