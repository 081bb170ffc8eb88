"""One study, from the command line to its end: what is searched, what launches it, and which files it writes."""

from __future__ import annotations

import functools
import itertools
import logging
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sweep.config.hydra_options import sweeper_options
from sweep.core import console, provenance, redaction
from sweep.core.errors import UserError, first_line
from sweep.launch.hydra_task import TrainingTask
from sweep.processes import isolated_call
from sweep.study.batch_launcher import BatchLauncher
from sweep.study.book import Book
from sweep.study.coordinator import Heartbeat
from sweep.study.objectives.base import Objective, Session
from sweep.study.objectives.function import FunctionObjective
from sweep.study.objectives.training import TrainingObjective
from sweep.study.patience import patiently, retries
from sweep.study.pruning.service import PruningService
from sweep.study.scheduler import Scheduler
from sweep.study.search import samplers
from sweep.study.search.enumeration import Enumeration, enumerate_settings
from sweep.study.storage import STORAGE_FAILS
from sweep.study.trial_store import TrialStore

log = logging.getLogger(__name__)
DEFAULT_TRIALS = 20
WITH_CONFIGS = 20  # jobs whose configs are in the value of `sweep`: 0.1 MB and 5 ms each


class Engine:
    """Launches the runs that a study lacks. `config` is the multirun's own, `options` are those of `hydra.sweeper`."""

    def __init__(
        self, context: HydraContext, task_function: TaskFunction, config: DictConfig, options: Mapping[str, Any]
    ):
        self._context = context
        self._task_function = task_function
        self._training = task_function if isinstance(task_function, TrainingTask) else None
        self._config = config
        self._options = sweeper_options(options)

    def sweep(self, arguments: Sequence[str]) -> list[list[JobReturn]]:
        """Run the study that `arguments` describe, or its missing part.

        Returns:
            Hydra's job returns: one list for each batch if the launcher works in batches, else one list.

        Raises:
            ConfigError: with the faults of all settings, before the first job.
            UserError: if the study exists under other conditions, or its storage fails.
            Exception: of a function, if more of its jobs failed than `max_failure_rate` allows.
        """
        if self._training:
            isolated_call.training_server().start()
        loader, ours = self._context.config_loader, self._training is not None
        found = enumerate_settings(loader, self._config, self._options, arguments, seed_is_replicate=ours)
        objective = self._objective(found)
        sampler = self._sampler(found, objective)
        HydraConfig.instance().set_config(self._config)
        folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"hydra.sweep.dir = {folder} is not a folder; name another one") from error
        self._save_command(folder, arguments)
        book = Book(self._options.storage)
        trials = TrialStore(
            storage=self._options.storage,
            name=objective.study_name,
            directions=objective.directions,
            metric_names=objective.metric_names,
            worst=objective.worst,
            space=found.space.distributions,
            sampler=sampler,
            others=book.others(objective.study_name),
        )
        self._set_pruner(trials, objective)
        launcher = self._launcher(objective)
        session: Session | None = None
        limit = self._options.n_trials
        # SIGTERM, for example from a cluster's scheduler, ends a study as Ctrl-C does: processes end, rows are closed.
        with isolated_call.handling(signal.SIGTERM, signal.default_int_handler), Heartbeat(book.beat):
            try:
                objective.prepare()
                with trials.lock():
                    session = objective.open(book, trials)
                    book.beat()
                    scheduler = Scheduler(book, trials, session, found, DEFAULT_TRIALS if limit is None else limit)
                    scheduler.enqueue()
                returns = self._run(launcher, session, scheduler, folder)
                self._send(session)
            except STORAGE_FAILS as error:  # the study cannot be closed in a storage that fails
                fault = f"hydra.sweeper.storage = {self._options.storage} fails: {first_line(error)}"
                raise UserError(f"{redaction.text(fault)}\nOnce it works, the same command continues.") from error
            except BaseException:
                self._close(session, trials, book, finished=False)
                raise
            self._close(session, trials, book, finished=True)
        self._save_results(trials, folder)
        session.require_complete(self._options.max_failure_rate)
        session.conclude(arguments)
        return returns

    # What is searched

    def _objective(self, found: Enumeration) -> Objective:
        compose = functools.partial(self._context.config_loader.load_sweep_config, self._config)
        options = {"direction": self._options.direction, "study_name": self._options.study_name}
        if self._training:
            return TrainingObjective.from_space(compose, found, task=self._training, **options)
        return FunctionObjective.from_space(compose, found, **options)

    def _sampler(self, found: Enumeration, objective: Objective) -> Any:
        node = self._options.sampler
        if not found.searching or samplers.kind_of(node) is not None:
            return None  # Optuna's default is TPE
        if found.space.dimensions:
            samplers.check_sampler(node, objective.directions, found.space.distributions)
        return samplers.build(node)

    def _set_pruner(self, trials: TrialStore, objective: Objective) -> None:
        pruner = self._options.pruner
        if not pruner:
            return
        if self._training is None:
            raise UserError("hydra.sweeper.pruner needs runs of `python -m sweep`: a function returns only at its end")
        self._training.should_prune = PruningService(pruner, trials, objective).should_prune

    # What launches

    def _run(self, opening: Any, session: Session, scheduler: Scheduler, folder: Path) -> list[list[JobReturn]]:
        returns: list[tuple[int, JobReturn]] = []
        batches: list[list[JobReturn]] = []
        number = _next_index(folder)
        numbers: dict[tuple[int, Any], int] = {}
        ended = itertools.count()
        most_failures = self._options.max_failure_rate
        objective = session.objective
        with opening as launcher:
            session.announce(scheduler.left(), launcher.places)
            with console.Progress(scheduler.left(), objective.study_name) as bar:
                while True:
                    while launcher.free and not session.gives_up(most_failures, self._options.n_jobs):
                        replicate = patiently(scheduler.next_run)
                        if replicate is None:
                            break
                        number = self._own_number(folder, number)
                        numbers[replicate.trial, replicate.seed] = number
                        launcher.submit(replicate, objective.overrides(replicate), number)
                        number += 1
                    bar.running(launcher.running)
                    if not launcher.running:
                        break
                    for replicate, returned, error in launcher.wait():
                        if error is not None:
                            raise error
                        if next(ended) >= WITH_CONFIGS:
                            returned.cfg = returned.hydra_cfg = None
                        returns.append((numbers[replicate.trial, replicate.seed], returned))
                        entry = session.entry(replicate, returned)
                        patiently(lambda r=replicate, e=entry: scheduler.record_result(r, e))
                        session.send()
                        bar.finished(scheduler.left())
                    if isinstance(launcher, BatchLauncher):
                        batches.append([returned for _, returned in returns])
                        returns.clear()
        return batches or [[returned for _, returned in sorted(returns, key=lambda pair: pair[0])]]

    def _launcher(self, objective: Objective) -> Any:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task_function, config=self._config
        )
        if hasattr(launcher, "open_pool"):  # it takes one job at a time
            return launcher.open_pool(self._options.n_jobs, objective.devices_per_run, WITH_CONFIGS)
        name = HydraConfig.get().runtime.choices.get("hydra/launcher")
        if self._options.pruner:
            raise UserError(
                "hydra.sweeper.pruner needs a launcher that receives the evaluations of its runs, and hydra/launcher="
                f"{name} does not; take hydra/launcher=paretune"
            )
        return nullcontext(BatchLauncher(launcher, self._options.n_jobs, str(name)))

    def _own_number(self, folder: Path, number: int) -> int:
        """The next job number whose folder does not exist. Creating the folder claims the number: another coordinator
        may write into the same parent folder."""
        by_number = OmegaConf.to_container(self._config.hydra.sweep, resolve=False).get("subdir") == "${hydra.job.num}"
        if not (self._training and by_number):
            return number
        while True:
            with suppress(FileExistsError):
                (folder / str(number)).mkdir()
                return number
            number += 1

    # What remains

    @staticmethod
    def _send(session: Session) -> None:
        """Write to MLflow what it lacks. During an outage, try again for PATIENCE_SECONDS; then UserError."""
        for delay in retries():
            if session.send():
                return
            time.sleep(delay)
        raise UserError(
            "results of this study are in hydra.sweeper.storage and not in MLflow; the same command sends them"
        )

    @staticmethod
    def _close(session: Session | None, trials: TrialStore, book: Book, finished: bool) -> None:
        with trials.lock():
            book.leave()
            if session is not None and not book.others():
                session.close(finished)

    def _save_command(self, folder: Path, arguments: Sequence[str]) -> None:
        if not self._training:
            whole = OmegaConf.to_container(self._config, resolve=False)
            (folder / "multirun.yaml").write_text(redaction.yaml(whole))
            return
        content = {
            "command": provenance.command(),
            "arguments": list(arguments),
            "hydra": OmegaConf.to_container(self._config.hydra, resolve=False),
        }
        (folder / "multirun.yaml").write_text(redaction.yaml(content))

    def _save_results(self, trials: TrialStore, folder: Path) -> None:
        """Write `optimization_results.yaml` as hydra-optuna-sweeper does: the best trial, or the Pareto front."""
        results: dict[str, Any] = {"name": "optuna"}
        best = trials.best()
        if len(trials.study.directions) == 1:
            results |= {"best_params": best[0].params, "best_value": best[0].value} if best else {}
        else:
            results["solutions"] = [{"params": trial.params, "values": trial.values} for trial in best]
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")


def _next_index(folder: Path) -> int:
    """One more than the highest job number there, so that a command never writes into an old folder."""
    taken = [int(path.name) for path in folder.iterdir() if re.fullmatch(r"\d+", path.name)]
    return max(taken, default=-1) + 1
