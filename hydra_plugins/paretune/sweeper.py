"""The study engine as a Hydra sweeper. Every Hydra application in the environment imports this module at its start, so
that it imports nothing heavy. The engine is in `sweep.study`."""

# No postponed annotations here: Hydra executes this file without registering the module, and dataclasses would look up
# the names of annotations in a module that does not exist.
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig

_OPTUNA_SWEEPER = "hydra_plugins.hydra_optuna_sweeper"


@dataclass
class ParetuneSweeperConf:
    """`hydra.sweeper.*`, with the key names of hydra-optuna-sweeper."""

    _target_: str = "hydra_plugins.paretune.sweeper.ParetuneSweeper"
    _recursive_: bool = False
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "auto"}])
    sampler: Any = MISSING
    """Sampler: a preset of `hydra/sweeper/sampler`, or a `_target_`."""
    direction: Any = None
    """`maximize` or `minimize`; a list for several numbers. Null: the score in its direction, and the memory
    minimised."""
    storage: Any = "sqlite:///${hydra.runtime.cwd}/optuna.db"
    """URL of Optuna's database, or a `_target_` of `optuna.storages`; null is in memory."""
    study_name: str | None = None
    """Name of the study in Optuna; null is `study.name`."""
    n_trials: int | None = None
    """Number of settings that a sampler proposes; null is 20, and the whole grid if it has at most 256 settings."""
    n_jobs: int = 1
    """Runs at a time on a machine without a GPU."""
    max_failure_rate: float | None = None
    """Largest share of failed runs before the study stops; null is no limit."""
    pruner: Any = None
    """Pruner: `dominance`, or a `_target_` of Optuna with one objective."""
    params: dict[str, Any] | None = None
    """Search space: key to Hydra's sweep syntax."""
    conditional_on: dict[str, Any] | None = None
    """Key to the values of other keys that it needs to be searched."""
    custom_search_space: str | None = None
    """Dotted name of a function of the config and the trial that adds dimensions."""


@dataclass
class OptunaSweeperConf(ParetuneSweeperConf):
    """The same engine under hydra-optuna-sweeper's name and with its defaults, if that plug-in is not installed. A
    config that was written for it runs unchanged."""

    _target_: str = "hydra_plugins.paretune.sweeper.OptunaSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    direction: Any = "minimize"
    storage: Any = None
    n_trials: int = 20
    n_jobs: int = 2
    max_failure_rate: float = 0.0
    search_space: dict[str, Any] | None = None


class ParetuneSweeper(Sweeper):
    """Runs a study by Optuna's ask and tell."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        from sweep.cli.app import exit_with_error
        from sweep.core.errors import UserError, disk_errors
        from sweep.study.engine import Engine

        try:
            with disk_errors():
                return Engine(self.hydra_context, self.task_function, self.config, self.options).sweep(arguments)
        except UserError as error:
            exit_with_error(error)


class OptunaSweeper(ParetuneSweeper):
    """Returns None, as hydra-optuna-sweeper does."""

    def sweep(self, arguments: list[str]) -> None:
        super().sweep(arguments)


class OptunaSweeperPath(SearchPathPlugin):
    """Hydra knows a plug-in by the path of its class, and configs for hydra-optuna-sweeper contain that path. Hydra
    calls this once it has found all plug-ins, before it composes a config."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if find_spec(_OPTUNA_SWEEPER) is None:
            Plugins.instance().class_name_to_class[f"{_OPTUNA_SWEEPER}.optuna_sweeper.OptunaSweeper"] = OptunaSweeper


# Null stands for Optuna's own default. The names are Optuna's. Old configs may contain names that Optuna has removed.
_OLD_TPE = {"consider_prior": None, "prior_weight": None, "consider_magic_clip": None, "consider_endpoints": None}
_TPE = {"n_startup_trials": 10, "multivariate": None, "group": None, "constant_liar": None,
        "warn_independent_sampling": None, **_OLD_TPE}  # fmt: skip
_GENETIC = {"population_size": 50, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5,
            "constraints_func": None}  # fmt: skip
SAMPLERS: dict[str, dict[str, Any]] = {
    "auto": {"_target_": "auto"},
    "grid": {"_target_": "grid"},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_ei_candidates": 24, **_TPE},
    "motpe": {"_target_": "sweep.study.search.samplers.motpe", "n_ehvi_candidates": 24, **_TPE},
    "gp": {"_target_": "optuna.samplers.GPSampler", "n_startup_trials": 10, "deterministic_objective": None},
    "nsgaii": {"_target_": "optuna.samplers.NSGAIISampler", **_GENETIC},
    "nsgaiii": {"_target_": "optuna.samplers.NSGAIIISampler", **_GENETIC},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "qmc_type": None, "scramble": True},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "x0": None, "sigma0": None, "independent_sampler": None,
              "n_startup_trials": None, "warn_independent_sampling": None, "consider_pruned_trials": None,
              "restart_strategy": None, "inc_popsize": None, "use_separable_cma": None,
              "source_trials": None},
    "bruteforce": {"_target_": "optuna.samplers.BruteForceSampler"},
}  # fmt: skip


def _register() -> None:
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="paretune", node=ParetuneSweeperConf, provider="paretune")
    if find_spec(_OPTUNA_SWEEPER) is not None:
        return  # its own groups have these names
    store.store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="paretune")
    for name, options in SAMPLERS.items():
        node = {**options, **({} if name in ("auto", "grid") else {"seed": None})}
        store.store(group="hydra/sweeper/sampler", name=name, node=node, provider="paretune")


_register()
