"""Our own application as a study: each job is a training run that returns a Record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sweep.config.schema import RunConfig, Study
from sweep.core import provenance, redaction
from sweep.core.errors import ConfigError, Fault
from sweep.launch import device_leases, device_locks, preparation
from sweep.launch.hydra_task import TrainingTask
from sweep.study import adaptive_seeds
from sweep.study.conditions import require_same
from sweep.study.entry import Entry, Seed
from sweep.study.objectives.base import Objective, Replicate
from sweep.study.objectives.mlflow_copy import opened_study
from sweep.study.objectives.training_session import TrainingSession
from sweep.study.objectives.training_settings import TrainingSettings
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Compose, Params

if TYPE_CHECKING:
    from sweep.launch.memory_forecast import MemoryForecaster
    from sweep.launch.preparation import Preparation
    from sweep.study.book import Book
    from sweep.study.trial_store import TrialStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingObjective(Objective):
    """The objectives are the score and the memory; with a single `hydra.sweeper.direction`, the score alone."""

    task: TrainingTask
    settings: TrainingSettings
    _prepared: dict[str, Preparation] = field(init=False, default_factory=dict)  # by the digest of a setting

    @classmethod
    def from_space(
        cls, compose: Compose, found: Enumeration, *, task: TrainingTask, direction: Any, study_name: str | None = None
    ) -> TrainingObjective:
        """ConfigError with the faults of all settings."""
        settings = TrainingSettings.from_space(compose, found)
        first = settings.first
        directions = _directions(first, direction)
        metric, count = first.task.metrics[first.task.score], len(directions)
        return cls(
            directions=directions,
            worst=[metric.worst, float("inf")][:count],
            metric_names=[first.task.score, first.study.memory_metric][:count],
            study_name=study_name or first.study.name,
            seeds=found.space.seeds or (first.seed,),
            devices_per_run=first.train.devices_per_run,
            task=task,
            settings=settings,
        )

    @property
    def study(self) -> Study:
        return self.settings.study

    def first_settings(self) -> list[Params]:
        return self.settings.own_of_each_variant()

    def prepare(self) -> None:
        """Data and base model of each setting, and the device: on the first free GPU of the study. A run that uses the
        GPU may need the study's lock, so this must not wait for the GPU under that lock."""
        # `open` needs MLflow, which takes seconds to import. Meanwhile another process prepares.
        threading.Thread(target=import_module, args=("sweep.launch.run_supervisor",), daemon=True).start()
        found = self.task.leases or device_leases.leases(devices_per_run=self.devices_per_run)
        with device_locks.first_free(found) as lease:
            for setting in self.settings.known.values():
                self._prepared[setting.digest] = preparation.prepare(setting.plain, lease)

    def key(self, params: Params) -> str:
        return self.settings.setting_of(params).name

    @property
    def adaptive(self) -> bool:
        return self.study.replicates != "all"

    @property
    def first_seeds(self) -> tuple[Seed, ...]:
        return self.seeds[: adaptive_seeds.FIRST] if self.adaptive else self.seeds

    def open(self, book: Book, trials: TrialStore) -> TrainingSession:
        from sweep.launch.run_supervisor import store

        name = str(self.study.name)
        runs = store(self.settings.first.tracking)
        settings = list(self.settings.known.values())
        swept = self.settings.space.swept
        # The store holds masked conditions. An unmasked value would never be equal to its masked one.
        conditions = [
            redaction.tree(preparation.conditions_of(s.config, s.plain, swept, self._prepared[s.digest]))
            for s in settings
        ]
        require_same(conditions, settings)
        tags = {"fingerprint": provenance.fingerprint(conditions[0]), "command": provenance.command()}
        parent_id = opened_study(book, runs, name, conditions[0], tags)
        try:
            return TrainingSession(self, self.settings, self.forecaster, runs, parent_id, book)
        except BaseException:
            if not book.others():
                runs.close_study(parent_id, "KILLED")
            raise

    def forecaster(self) -> MemoryForecaster:
        """The memory predictions for the device that was prepared."""
        return self.task.forecaster(next(iter(self._prepared.values())).machine)

    def attributes(self, params: Params) -> dict[str, Any]:
        return {"setting": self.settings.setting_of(params).name}

    def in_order(self, settings: Sequence[Params]) -> list[Params]:
        """Smallest memory first, if the memory of all settings can be predicted. An out-of-memory run then comes late,
        and pruning finds runs that need no more memory to compare with."""
        if not self.study.predict_memory:
            return list(settings)
        predicted = self.forecaster().predict_all([self.settings.setting_of(params).plain for params in settings])
        sizes = [one.peak_bytes for one in predicted if one is not None]
        if len(sizes) < len(settings):
            return list(settings)
        return [params for _, params in sorted(zip(sizes, settings, strict=True), key=lambda pair: pair[0])]

    def wanted(self, entries: Mapping[int, Mapping[Seed, Entry]]) -> Mapping[int, Sequence[Seed]]:
        return adaptive_seeds.wanted(
            entries,
            self.seeds,
            threshold=self.study.score_threshold,
            higher_is_better=self.directions[0] == "maximize",
            n_examples=getattr(self.settings.first.task.data, "n_validation", None),
        )

    def overrides(self, replicate: Replicate) -> list[str]:
        return [
            *self.settings.space.overrides(replicate.params),
            f"seed={replicate.seed}",
            f"study.trial={replicate.trial}",
            f"study.swept=[{','.join(self.settings.space.swept_in(replicate.params))}]",
        ]


def _directions(first: RunConfig, asked: Any) -> list[str]:
    directions = ["maximize" if first.task.higher_is_better else "minimize", "minimize"]
    if asked is None:
        return directions
    listed = [asked] if isinstance(asked, str) else list(asked)
    if listed != directions[: len(listed)] or len(listed) not in (1, 2):
        message = (
            f"must be [{', '.join(directions)}], the score ({first.task.score}) and the memory; or {directions[0]}, "
            "the score alone; or null"
        )
        raise ConfigError([Fault("hydra.sweeper.direction", str(asked), message)])
    return listed
