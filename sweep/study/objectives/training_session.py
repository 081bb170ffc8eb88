"""A study of training runs while it is open."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn

from sweep.core import console, program, redaction
from sweep.core.errors import UserError, first_line
from sweep.core.overrides import shell_override
from sweep.core.record import LAUNCHED, Outcome, Record
from sweep.diagnostics import annotate
from sweep.study import pareto_front
from sweep.study.entry import Entry
from sweep.study.objectives.base import Objective, Replicate, Session
from sweep.study.objectives.mlflow_copy import MlflowCopy
from sweep.study.objectives.training_settings import TrainingSettings
from sweep.study.objectives.training_values import record_of, to_optuna_values

if TYPE_CHECKING:
    from sweep.launch.memory_forecast import MemoryForecaster
    from sweep.study.book import Book
    from sweep.tracking.mlflow_store import MlflowStore

log = logging.getLogger(__name__)


class TrainingSession(Session):
    """The runs of a study: those of earlier commands, and those of this command."""

    def __init__(
        self,
        objective: Objective,
        settings: TrainingSettings,
        forecaster: Callable[[], MemoryForecaster],
        runs: MlflowStore,
        parent_id: str,
        book: Book,
    ):
        """Makes the book and MLflow agree, and makes the runs that must run again wanted."""
        super().__init__(objective)
        self._settings = settings
        self._forecaster = forecaster
        self._runs = runs
        self._parent_id = parent_id
        self._book = book
        self._ended: list[Record] = []
        self._front: list[pareto_front.Standing] = []
        self._copy = MlflowCopy(book, runs, parent_id, self._entry_of)
        book.begin_command()
        self._copy.agree()
        earlier = self._copy.records()
        self._require_same_values(earlier.values())
        book.again([run for run, record in earlier.items() if self._fits_now(record)])
        book.retry(settings.study.max_attempts)
        self._warn_of_crashes()
        self._earlier = [record for record in self._copy.records().values() if record.outcome.final]
        runs.reopen_study(parent_id)
        self._copy.send()

    def _require_same_values(self, records: Iterable[Record]) -> None:
        digests = {setting.name: setting.digest for setting in self._settings.known.values()}
        for record in records:
            digest = record.facts.get("setting_digest")
            if record.outcome.final and digests.get(record.setting, digest) != digest:
                raise UserError(
                    f"setting {record.setting} was run with other values or other code of its variant in this study; "
                    "in a study, a name has one meaning. Choose another study.name, or another variant.name"
                )

    def _fits_now(self, record: Record) -> bool:
        """Whether a run that was not launched would be launched now. A larger budget, a larger device, or
        `study.launch_despite_prediction` change that."""
        known, study = self._settings.known.values(), self._settings.study
        plain = next((setting.plain for setting in known if setting.name == record.setting), None)
        if record.facts.get(LAUNCHED) != "false" or plain is None:
            return False
        if not study.predict_memory:
            return True
        forecaster = self._forecaster()
        return forecaster.skip_reason(forecaster.predict(plain), study) is None

    def _warn_of_crashes(self) -> None:
        for (name, seed), count in self._book.crashes().items():
            if count >= self._settings.study.max_attempts:
                log.warning(
                    "%s · seed %s was killed %d times and does not run again; raise study.max_attempts, or delete its "
                    "rows in MLflow", name, seed, count,
                )  # fmt: skip

    def announce(self, left: int, places: str) -> None:
        done = sum(record.seed in self.objective.seeds for record in self._earlier)
        if left == 0 and done == 0:
            log.info("Study %s has no run, and this command launches none.", self.objective.study_name)
        elif left == 0:
            log.info("All %d runs of study %s are done already.", done, self.objective.study_name)
        else:
            known = f"study {self.objective.study_name}: {done} of {done + left} runs are done"
            most = "at most " if self._settings.study.replicates != "all" else ""
            searched = [str(dimension) for dimension in self._settings.space.dimensions.values()]
            seeds = ", ".join(map(str, self.objective.seeds))
            for caution in self._settings.cautions():
                log.warning("%s", caution)
            log.info("%s; seed = %s", "; ".join(searched) or "one setting", seeds)
            log.info("%s; launching %s%d on %s.", known, most, left, places)

    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        record = record_of(returned)
        self._ended.append(record)
        log.info("\n".join([console.line(record), *annotate.lines(record)]))
        self._log_front()
        return self._entry_of(record)

    def _entry_of(self, record: Record) -> Entry:
        return to_optuna_values(record, self._settings.study, len(self.objective.directions))

    def _log_front(self) -> None:
        """Log the Pareto front if the last run has changed it."""
        runs = [*self._earlier, *self._ended]
        metric = self._settings.study.memory_metric
        standings = pareto_front.front(runs, metric, self.objective.directions[0] == "maximize")
        if len({run.setting for run in runs}) > 1 and standings and standings != self._front:
            log.info(pareto_front.line(standings))
        self._front = standings

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """Whether more of this command's runs have failed or were killed than `max_failure_rate`, a fraction. None is
        any number: each failed run is a row with its reason."""
        lost = sum(not record.outcome.final for record in self._ended)
        return (
            max_failure_rate is not None and len(self._ended) >= at_least and lost / len(self._ended) > max_failure_rate
        )

    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raise UserError if runs ended without a result for their setting. Out of memory and divergence are
        results."""
        lost = [record for record in self._ended if not record.outcome.final]
        if lost:
            lines = "\n".join(f"  {record.name}: {record.outcome}: {first_line(record.reason)}" for record in lost)
            raise UserError(
                f"{len(lost)} of the study's runs ended without a result:\n{lines}\n"
                "Fix the cause and give the same command again: it repeats these runs and no others."
            )
        runs = [*self._ended, *self._earlier]
        if runs and not any(record.outcome is Outcome.OK for record in runs):
            raise UserError(
                "no run of this study was ok, so that it has no answer. Out of memory: smaller micro-batches, shorter "
                "sequences, activation checkpointing or QLoRA. Diverged: a lower learning rate."
            )

    def conclude(self, arguments: Sequence[str]) -> None:
        if not self._ended and not self._earlier:
            return
        tracking = [shlex.quote(argument) for argument in arguments if argument.startswith("tracking")]
        command = " ".join([program.command("analyze"), shell_override("study", self._settings.study.name), *tracking])
        log.info("The study is complete. Its answer: %s", redaction.text(command))

    def send(self) -> bool:
        return self._copy.send()

    def close(self, finished: bool) -> None:
        self._runs.close_study(self._parent_id, "FINISHED" if finished else "KILLED")
