"""One study, from the command line to its end: what is searched, what launches it, what is left on disk."""

from __future__ import annotations

import itertools
import logging
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from sweep.core import console, provenance, redaction
from sweep.core.errors import UserError, first_line
from sweep.hydra_compat.composition import Compositions
from sweep.launch.hydra_task import TrainingTask
from sweep.processes import isolated_call
from sweep.study.batch_launcher import Batches
from sweep.study.conditions import Setting
from sweep.study.coordinator import Heartbeat
from sweep.study.objectives.base import Objective
from sweep.study.objectives.function import FunctionObjective
from sweep.study.objectives.training import TrainingObjective
from sweep.study.pruning.service import PruningService
from sweep.study.scheduler import Scheduler
from sweep.study.search import samplers
from sweep.study.search.space import Params, Space
from sweep.study.trial_store import STORAGE_FAILS, TrialStore

log = logging.getLogger(__name__)
SMALL = 256  # settings: a finite space up to this size is exhausted, where no number of trials is asked for
DEFAULT_TRIALS = 20
WITH_CONFIGS = 20  # jobs whose configs are in what `sweep` returns: 0.1 MB and 5 ms each


class Engine:
    """Launches what a study lacks, and tells Optuna. `options` are those of `hydra.sweeper`."""

    def __init__(
        self, context: HydraContext, task_function: TaskFunction, config: DictConfig, options: Mapping[str, Any]
    ):
        self._context = context
        self._task_function = task_function
        self._config = config
        self._options = options
        self._ours = isinstance(task_function, TrainingTask)
        self._compositions = Compositions(context.config_loader, config)
        self._n_jobs = max(1, int(options.get("n_jobs") or 1))

    def sweep(self, arguments: Sequence[str]) -> list[list[JobReturn]]:
        """Run the study that `arguments` describe, or what is missing of it. Returns Hydra's job returns, in batches
        where the launcher works in batches.

        Raises:
            ConfigError: with the faults of all its settings, before anything is launched.
            UserError: where the study exists under other conditions, or its store fails.
            Exception: of an application that is not ours, where more of its jobs failed than `max_failure_rate` allows.
        """
        options = self._options
        objective = self._application()
        space = self._space(arguments)
        extend = self._extension()
        settings = self._all_settings(space, extend is not None)
        searching = settings is None
        objective.check(space, list(space.corners()) if searching else settings, searching)
        sampler = self._sampler(settings, objective, space)
        HydraConfig.instance().set_config(self._config)
        folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._save_command(folder, arguments)
        trials = TrialStore(
            storage=options.get("storage"),
            name=objective.study_name,
            directions=objective.directions,
            metric_names=objective.metric_names,
            worst=objective.worst,
            space={key: dimension.distribution for key, dimension in space.dimensions.items()},
            sampler=sampler,
        )
        limit = int(options.get("n_trials") or DEFAULT_TRIALS)
        if options.get("pruner") and not self._ours:
            raise UserError("hydra.sweeper.pruner needs runs of `python -m sweep`: a function only returns at its end")
        if options.get("pruner"):
            self._task_function.should_prune = PruningService(options["pruner"], trials, objective).should_prune
        scheduler = Scheduler(trials, objective, space, settings, limit, extend)
        # A scheduler's SIGTERM ends a study as Ctrl-C does: children ended, rows closed.
        with isolated_call.handling(signal.SIGTERM, signal.default_int_handler), Heartbeat(trials.heartbeat):
            try:
                with trials.lock():
                    objective.open(trials, settings)
                    scheduler.enqueue()
                returns = self._run(objective, scheduler, folder)
            except STORAGE_FAILS as error:  # there is nobody to tell it to
                told = redaction.text(f"hydra.sweeper.storage = {options.get('storage')} fails: {first_line(error)}")
                raise UserError(f"{told}\nOnce it answers, the same command goes on.") from error
            except BaseException:
                self._leave(objective, trials, finished=False)
                raise
            self._leave(objective, trials, finished=True)
        self._save_results(trials, folder)
        objective.require_complete(options.get("max_failure_rate"))
        objective.conclude(arguments)
        return returns

    def settings(self, arguments: Sequence[str]) -> tuple[list[Setting], bool]:
        """What a study of `arguments` would run, composed and checked, and nothing launched. True with it where a
        sampler would search: the settings are then the corners of what is searched.

        Raises:
            ConfigError: with the faults of all of them.
        """
        objective = TrainingObjective(self._compositions, self._options.get("direction"), None)
        space = self._space(arguments)
        settings = self._all_settings(space, self._extension() is not None)
        shown = list(space.corners()) if settings is None else settings
        objective.check(space, shown, settings is None)
        return list({id(one): one for one in map(objective.setting_of, shown)}.values()), settings is None

    def _application(self) -> Objective:
        direction, name = self._options.get("direction"), self._options.get("study_name")
        if not self._ours:
            return FunctionObjective(self._compositions, direction, name)
        isolated_call.training_server().start()
        return TrainingObjective(self._compositions, direction, name)

    # What is searched

    def _space(self, arguments: Sequence[str]) -> Space:
        loader = self._context.config_loader
        params = self._options.get("params") or self._options.get("search_space") or {}
        conditional_on = self._options.get("conditional_on") or {}
        space = Space.of(params, arguments, loader, seed_is_replicate=self._ours, conditional_on=conditional_on)
        groups = [key for key in space.dimensions if loader.get_group_options(key)]
        return space.conditioned(self._has(space), groups)

    def _has(self, space: Space) -> Callable[[str, str, str], bool]:
        """Whether the config has a key where a group's choice is taken."""

        def has(group: str, choice: str, key: str) -> bool:
            fixed = [text for name, text in space.fixed.items() if not name.startswith(f"{group}.")]
            composed = self._compositions.of([*fixed, f"{group}={choice}"])
            HydraConfig.instance().set_config(composed)  # for Hydra's resolvers
            parent, _, last = key.rpartition(".")
            node = OmegaConf.select(composed, parent, throw_on_resolution_failure=False)
            return isinstance(node, DictConfig) and last in node

        return has

    def _extension(self) -> Callable[[Any], None] | None:
        named = self._options.get("custom_search_space")
        if not named:
            return None
        try:
            configure = get_method(named)
        except (ImportError, ValueError, AttributeError) as error:
            raise UserError(f"hydra.sweeper.custom_search_space = {named} cannot be imported: {error}") from error
        return lambda trial: configure(self._config, trial)

    def _all_settings(self, space: Space, extended: bool) -> list[Params] | None:
        """All settings, where the study is to run them all; None where a sampler proposes."""
        kind, asked = samplers.kind_of(self._options.get("sampler")), self._options.get("n_trials")
        if kind == samplers.GRID:
            endless = [key for key, dimension in space.dimensions.items() if dimension.values is None]
            if endless:
                raise UserError(
                    f"hydra.sweeper.sampler=grid needs values to choose from, but {', '.join(endless)} is an interval; "
                    "write choice(…) or range(…), or take another sampler"
                )
            settings = list(space.settings())
            return settings if asked is None else settings[: int(asked)]
        if kind == samplers.AUTO and not extended and space.size_at_most(int(asked or SMALL)):
            return list(space.settings())
        return None

    def _sampler(self, settings: list[Params] | None, objective: Objective, space: Space) -> Any:
        node = self._options.get("sampler")
        if settings is not None or samplers.kind_of(node) is not None:
            return None  # Optuna's default is TPE
        distributions = {key: dimension.distribution for key, dimension in space.dimensions.items()}
        if distributions:
            samplers.check_sampler(node, objective.directions, distributions)
        return samplers.build(node)

    # What launches

    def _run(self, objective: Objective, scheduler: Scheduler, folder: Path) -> list[list[JobReturn]]:
        returns: list[tuple[int, JobReturn]] = []
        batches: list[list[JobReturn]] = []
        number = _next_index(folder)
        numbers: dict[tuple[int, Any], int] = {}
        ended = itertools.count()
        most_failures = self._options.get("max_failure_rate")
        with self._launcher(objective) as launcher:
            objective.announce(scheduler.left(), launcher.places)
            with console.Progress(scheduler.left(), objective.study_name) as bar:
                while True:
                    while launcher.free and not objective.gives_up(most_failures, self._n_jobs):
                        replicate = scheduler.next_run()
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
                        scheduler.record_result(replicate, returned)
                        bar.finished(scheduler.left())
                    if isinstance(launcher, Batches):
                        batches.append([returned for _, returned in returns])
                        returns.clear()
        return batches or [[returned for _, returned in sorted(returns, key=lambda pair: pair[0])]]

    def _launcher(self, objective: Objective) -> Any:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=self._task_function, config=self._config
        )
        if hasattr(launcher, "open"):
            return launcher.open(self._n_jobs, objective.devices_per_run, WITH_CONFIGS)
        if self._options.get("pruner"):
            raise UserError(
                "hydra.sweeper.pruner needs runs that can be asked while they go on, and hydra/launcher="
                f"{HydraConfig.get().runtime.choices.get('hydra/launcher')} hides them; take hydra/launcher=paretune"
            )
        name = HydraConfig.get().runtime.choices.get("hydra/launcher")
        return Batches(launcher, self._n_jobs, str(name))

    def _own_number(self, folder: Path, number: int) -> int:
        """The next job number of which no folder exists, claimed by making it: another coordinator may write there."""
        by_number = OmegaConf.to_container(self._config.hydra.sweep, resolve=False).get("subdir") == "${hydra.job.num}"
        if not (self._ours and by_number):
            return number
        while True:
            try:
                (folder / str(number)).mkdir()
            except FileExistsError:
                number += 1
            else:
                return number

    # What is left

    @staticmethod
    def _leave(objective: Objective, trials: TrialStore, finished: bool) -> None:
        with trials.lock():
            trials.deregister()
            objective.close(trials, finished)

    def _save_command(self, folder: Path, arguments: Sequence[str]) -> None:
        if not self._ours:
            OmegaConf.save(self._config, folder / "multirun.yaml")
            return
        content = {
            "command": provenance.command(),
            "arguments": list(arguments),
            "hydra": OmegaConf.to_container(self._config.hydra, resolve=False),
        }
        (folder / "multirun.yaml").write_text(redaction.yaml(content))

    def _save_results(self, trials: TrialStore, folder: Path) -> None:
        """`optimization_results.yaml`, as hydra-optuna-sweeper writes it: the best trial, or the Pareto front."""
        results: dict[str, Any] = {"name": "optuna"}
        best = trials.best()
        if len(trials.study.directions) == 1:
            results |= {"best_params": best[0].params, "best_value": best[0].value} if best else {}
        else:
            results["solutions"] = [{"params": trial.params, "values": trial.values} for trial in best]
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")


def _next_index(folder: Path) -> int:
    """One more than the highest job number there, so that going on never writes into an old folder."""
    taken = [int(path.name) for path in folder.iterdir() if re.fullmatch(r"\d+", path.name)]
    return max(taken, default=-1) + 1
