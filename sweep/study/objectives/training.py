"""Our own application as a study: each job is a training with a Record, and MLflow is the ledger of what is done.

A run that was deleted in MLflow is run again, whatever Optuna remembers.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn

from sweep.config.schema import RunConfig, parse, plain_config
from sweep.core import console, provenance, redaction
from sweep.core.errors import ConfigError, Fault, UserError, first_line
from sweep.core.record import Outcome, Record
from sweep.core.setting import VARIANT, select, setting_digest, setting_name
from sweep.diagnostics import annotate
from sweep.hydra_compat.composition import Compositions
from sweep.study import adaptive_seeds, pareto_front
from sweep.study.completed_runs import CompletedRuns
from sweep.study.conditions import Setting, name_clashes, require_same, require_same_study
from sweep.study.objectives import training_values
from sweep.study.objectives.base import Objective, Replicate
from sweep.study.search.space import Params, Space

if TYPE_CHECKING:
    from sweep.study.trial_store import Entry, Seed, TrialStore

log = logging.getLogger(__name__)


class TrainingObjective(Objective):
    """The objectives are the score and the memory; with `hydra.sweeper.direction` a single one, the score alone."""

    keeps_ledger = True

    def __init__(self, compositions: Compositions, direction: Any, study_name: str | None):
        self._compositions = compositions
        self._asked_direction = direction
        self._asked_name = study_name
        self._settings: dict[tuple[Any, ...], Setting] = {}
        self._ledger = CompletedRuns()
        self.ended: list[Record] = []
        self._front: list[pareto_front.Standing] = []
        self.metric_names = None
        self._parent_id: str | None = None

    # Before anything is launched

    def check(self, space: Space, settings: Sequence[Params], searching: bool) -> None:
        self._space = space
        self._searching = False
        faults: list[Fault] = []
        for params in settings:
            try:
                self.setting_of(params)
            except ConfigError as error:
                faults.extend(error.faults)
        faults.extend(name_clashes(self._settings.items()))
        if faults:
            raise ConfigError(faults)
        if not self._settings:
            raise UserError("the study has no setting: name at least one value for each swept key")
        first = next(iter(self._settings.values())).config
        if first.study.name is None:
            raise ConfigError([Fault("study.name", "null", "a study needs a name")])
        self._first = first
        self.study_name = self._asked_name or first.study.name
        metric = first.task.metrics[first.task.score]
        self.directions = ["maximize" if first.task.higher_is_better else "minimize", "minimize"]
        self.metric_names = [first.task.score, first.study.memory_metric]
        self.worst = [metric.worst, float("inf")]
        self.devices_per_run = first.train.devices_per_run
        self._searching = searching
        self._take_direction(first)

    def _take_direction(self, first: RunConfig) -> None:
        asked = self._asked_direction
        if asked is None:
            return
        listed = [asked] if isinstance(asked, str) else list(asked)
        if listed != self.directions[: len(listed)] or len(listed) not in (1, 2):
            raise ConfigError(
                [
                    Fault(
                        "hydra.sweeper.direction",
                        str(asked),
                        f"must be [{', '.join(self.directions)}], the score ({first.task.score}) and the memory; or "
                        f"{self.directions[0]}, for the score alone; or null",
                    )
                ]
            )
        self.directions = self.directions[: len(listed)]
        self.metric_names = self.metric_names[: len(listed)]
        self.worst = self.worst[: len(listed)]

    def setting_of(self, params: Params) -> Setting:
        """A setting as it is composed."""
        key = tuple(params.items())
        if key in self._settings:
            return self._settings[key]
        plain = self._composed(self._space.overrides(params))
        swept = self._swept(params)
        setting = Setting(setting_name(plain, swept), setting_digest(plain, swept), parse(plain), plain)
        if not self._searching:  # a search may go on for thousands
            self._settings[key] = setting
        return setting

    def _composed(self, overrides: Sequence[str]) -> dict[str, Any]:
        composed = self._compositions.of(overrides)
        HydraConfig.instance().set_config(composed)  # for Hydra's resolvers
        return plain_config(composed)

    def _swept(self, params: Params) -> list[str]:
        """The keys that make this setting: one that does not exist in it is not part of its name."""
        return [key for key in self._space.swept if key not in self._space.dimensions or key in params]

    @property
    def study(self) -> Any:
        """The study's own part of the config."""
        return self._first.study

    def seeds(self) -> tuple[Seed, ...]:
        return self._space.seeds or (self._first.seed,)

    def plain_settings(self, space: Space) -> list[Params]:
        """Each variant with its own values, where the space holds them."""
        choices = space.dimensions[VARIANT].values if VARIANT in space.dimensions else (None,)
        plain_settings = []
        for choice in choices or ():
            overrides = [*space.fixed.values(), *([f"{VARIANT}={choice}"] if choice is not None else [])]
            plain = self._composed(overrides)
            params: Params = {} if choice is None else {VARIANT: choice}
            for key in space.in_order_of_dependence():
                if key not in params and space.exists(key, params):
                    own = select(plain, key.lstrip("+"))
                    if space.dimensions[key].contains(own):
                        params[key] = own
            plain_settings.append(params)
        return plain_settings

    # The study's rows

    def open(self, trials: TrialStore, settings: Sequence[Params] | None) -> None:
        from sweep.launch.preparation import conditions_of  # MLflow takes seconds to import
        from sweep.launch.run_supervisor import store

        first, name = self._first, str(self._first.study.name)
        self._runs = store(first.tracking)
        known = list(self._settings.values())
        # Masked as they are kept, or a masked value would never equal itself.
        conditions = [redaction.tree(conditions_of(s.config, s.plain, self._space.swept)) for s in known]
        require_same(conditions, known)
        parent = self._runs.find_study(name)
        if parent is None:
            tags = {"fingerprint": provenance.fingerprint(conditions[0]), "command": provenance.command()}
            parent = self._runs.create_study(name, conditions[0], tags)
        else:
            require_same_study(name, self._runs.study_conditions(parent), conditions[0])
        self._parent_id = parent.info.run_id
        digests = {setting.name: setting.digest for setting in known}
        self._ledger = CompletedRuns(self._runs.adopt(self._parent_id, trials.is_alive), digests, self._still_too_large)
        self._runs.reopen_study(self._parent_id)

    def _still_too_large(self, record: Record) -> bool:
        """Whether a run that was not launched would not be launched now: with `study.launch_despite_prediction`, or a
        larger budget or device, it is."""
        from sweep.launch.hydra_task import task

        plain = next((one.plain for one in self._settings.values() if one.name == record.setting), None)
        if plain is None or not self.study.predict_memory:
            return plain is None
        forecaster = task.forecaster()
        return forecaster.skip_reason(forecaster.predict(plain), self.study) is not None

    def attributes(self, params: Params) -> dict[str, Any]:
        return {"setting": self.setting_of(params).name}

    def done(self, params: Params) -> dict[Seed, Entry]:
        name = self.setting_of(params).name
        found = {seed: self._told(record) for seed, record in self._ledger.done(name).items()}
        for seed in self.seeds():
            attempts = self._ledger.attempts(name, seed)
            if seed not in found and attempts >= self.study.max_attempts:
                log.warning(
                    "%s · seed %s was killed %d times and is not tried again; raise study.max_attempts, or delete its "
                    "rows in MLflow", name, seed, attempts,
                )  # fmt: skip
                from sweep.study.trial_store import Entry

                found[seed] = Entry(outcome="killed")
        return found

    def announce(self, left: int, places: str) -> None:
        there = sum(record.seed in self.seeds() for record in self._ledger.all())
        if left == 0:
            log.info("All %d runs of study %s are there already.", there, self.study_name)
        else:
            known = f"study {self.study_name}: {there} of {there + left} runs are there"
            most = "at most " if self.study.replicates != "all" else ""
            log.info("%s; launching %s%d on %s.", known, most, left, places)

    def order(self, settings: Sequence[Params]) -> list[Params]:
        """Smallest memory first, where all of it can be foretold: an out-of-memory then comes late, and pruning, which
        compares with what needs no more memory, has something to compare with."""
        if not self.study.predict_memory:
            return list(settings)
        from sweep.launch.hydra_task import task

        foretold = task.forecaster().predict_all([self.setting_of(params).plain for params in settings])
        if any(one is None for one in foretold):
            return list(settings)
        sizes = [one.allocated_bytes for one in foretold if one is not None]
        return [params for _, params in sorted(zip(sizes, settings, strict=True), key=lambda pair: pair[0])]

    # Jobs

    def wanted(self, trials: TrialStore) -> Mapping[int, Sequence[Seed]] | None:
        if self.study.replicates == "all":
            return None
        return adaptive_seeds.wanted(
            {trial.number: trials.entries(trial) for trial in trials.all() if "setting" in trial.user_attrs},
            self.seeds(),
            threshold=self.study.score_threshold,
            higher_is_better=self.directions[0] == "maximize",
        )

    def overrides(self, replicate: Replicate) -> list[str]:
        return [
            *self._space.overrides(replicate.params),
            f"seed={replicate.seed}",
            f"study.trial={replicate.trial}",
            f"study.swept=[{','.join(self._swept(dict(replicate.params)))}]",
        ]

    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        record = training_values.record_of(returned)
        self.ended.append(record)
        log.info("\n".join([console.line(record), *annotate.lines(record)]))
        self._tell_front()
        return self._told(record)

    def _tell_front(self) -> None:
        """Where the last run has changed it."""
        runs = [*self._ledger.all(), *self.ended]
        standings = pareto_front.front(runs, self.study.memory_metric, self.directions[0] == "maximize")
        if len({run.setting for run in runs}) > 1 and standings and standings != self._front:
            log.info(pareto_front.line(standings))
        self._front = standings

    def _told(self, record: Record) -> Entry:
        return training_values.to_optuna_values(record, self.study, len(self.directions))

    # The end

    def close(self, trials: TrialStore, finished: bool) -> None:
        if self._parent_id is None or trials.others():
            return  # never begun, or others go on
        self._runs.close_study(self._parent_id, "FINISHED" if finished else "KILLED")

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """More of this command's runs have failed or were killed than `max_failure_rate` allows; null is any number:
        each is a row with its reason."""
        lost = sum(not record.outcome.final for record in self.ended)
        return (
            max_failure_rate is not None and len(self.ended) >= at_least and lost / len(self.ended) > max_failure_rate
        )

    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raises UserError where runs ended without saying anything of their setting. Out of memory and divergence are
        results."""
        lost = [record for record in self.ended if not record.outcome.final]
        if lost:
            lines = "\n".join(f"  {record.name}: {record.outcome}: {first_line(record.reason)}" for record in lost)
            raise UserError(
                f"{len(lost)} of the study's runs ended without a result:\n{lines}\n"
                "Mend the cause and give the same command again: it repeats these and no others."
            )
        if not any(record.outcome is Outcome.OK for record in [*self.ended, *self._ledger.all()]):
            raise UserError(
                "no run of this study was ok, so that it has no answer. Out of memory: smaller micro-batches, shorter "
                "sequences, activation checkpointing or QLoRA. Diverged: a lower learning rate."
            )

    def conclude(self, arguments: Sequence[str]) -> None:
        elsewhere = [shlex.quote(argument) for argument in arguments if argument.startswith("tracking")]
        command = " ".join(["python -m analysis", f"study={self._first.study.name}", *elsewhere])
        log.info("The study is complete. Its answer: %s", redaction.text(command))
