"""Optuna by ask and tell: one trial per setting, its value the mean over the replicates."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from sweep import redact
from sweep.config import RunConfig
from sweep.errors import UserError, first_line
from sweep.record import Outcome, Record

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


class Oracle:
    """A study with two objectives: the score in its direction, and the memory, to be minimised.

    `space` maps each searched key to its values. A study that was begun with fewer values is widened.
    """

    def __init__(
        self, options: Mapping[str, Any], config: RunConfig, study_name: str, space: Mapping[str, tuple[str, ...]]
    ):
        self._memory_metric = config.study.memory_metric
        metric = config.task.metrics[config.task.score]
        self._worst_score = metric.worst
        self._arguments = {
            "study_name": options.get("study_name") or study_name,
            "storage": options.get("storage"),
            "directions": ["maximize" if metric.higher_is_better else "minimize", "minimize"],
        }
        try:
            self._study = optuna.create_study(**self._arguments, load_if_exists=True)
            self._space = self._widened(space)
        except (SQLAlchemyError, ValueError, ImportError, RuntimeError) as error:
            first = first_line(error)
            raise UserError(
                redact.text(f"hydra.sweeper.storage = {options.get('storage')} does not work: {first}")
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([config.task.score, self._memory_metric])

    def _widened(self, space: Mapping[str, tuple[str, ...]]) -> dict[str, CategoricalDistribution]:
        """The values of this grid and of the study's earlier ones. Optuna holds a parameter's values fixed, so where a
        grid has grown, the study is made anew with the old trials in it."""
        trials = self._study.get_trials(deepcopy=False)
        old = {key: d.choices for trial in trials for key, d in trial.distributions.items()}
        union = {key: tuple(dict.fromkeys([*old.get(key, ()), *space.get(key, ())])) for key in {**old, **space}}
        if any(union[key] != choices for key, choices in old.items()):
            optuna.delete_study(study_name=self._arguments["study_name"], storage=self._arguments["storage"])
            self._study = optuna.create_study(**self._arguments)
            for trial in trials:
                trial.distributions = {key: CategoricalDistribution(union[key]) for key in trial.distributions}
                if trial.state.is_finished():
                    self._study.add_trial(trial)
        return {key: CategoricalDistribution(choices) for key, choices in union.items()}

    def ask(self, choices: Mapping[str, str], setting: str) -> int:
        """The number of the trial for a setting: the one that was left running, or a new one."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.params == dict(choices):
                return trial.number
        self._study.enqueue_trial(dict(choices), user_attrs={"setting": setting})
        return self._study.ask({key: self._space[key] for key in choices}).number

    def tell(self, number: int, records: Sequence[Record]) -> None:
        """Close a trial with the means over its `ok` replicates.

        Out of memory and divergence are told as COMPLETE with a violated constraint, since samplers do not see FAIL and
        would propose them again. `failed` and `killed` say nothing about the setting: FAIL.
        """
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial = Trial(self._study, frozen._trial_id)
        for record in records:
            trial.set_user_attr(f"outcome:seed {record.seed}", str(record.outcome))
        ok = [record for record in records if record.outcome is Outcome.OK]
        violated = [r for r in records if r.outcome in (Outcome.OOM, Outcome.DIVERGED)]
        memory = [r.measurements[self._memory_metric] for r in ok or violated if self._memory_metric in r.measurements]
        trial.set_constraint("out_of_memory", float(any(r.outcome is Outcome.OOM for r in records)))
        trial.set_constraint("diverged", float(any(r.outcome is Outcome.DIVERGED for r in records)))
        if ok and memory:
            score = sum(record.measurements["score"] for record in ok) / len(ok)
            self._study.tell(number, [score, sum(memory) / len(memory)])
        elif violated and memory:
            self._study.tell(number, [self._worst_score, sum(memory) / len(memory)])
        else:
            self._study.tell(number, state=TrialState.FAIL)
