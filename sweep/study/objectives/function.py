"""Any Hydra application as a study: its function returns the objectives, as in hydra-optuna-sweeper."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from optuna.trial import TrialState

from sweep.core import redaction
from sweep.core.errors import UserError, described, first_line
from sweep.hydra_compat.isolated_job import JobFailed, exception_of, traceback_of
from sweep.study.conditions import require_same_study
from sweep.study.entry import Entry
from sweep.study.objectives.base import Objective, Replicate, Session
from sweep.study.search.enumeration import Enumeration
from sweep.study.search.space import Compose, Params, Space

if TYPE_CHECKING:
    from sweep.study.book import Book
    from sweep.study.trial_store import TrialStore

log = logging.getLogger(__name__)
_SEARCHED = "searched"
_COMPOSED = 4  # settings that are composed before the first job: a key that the config lacks is missing in all


@dataclass(frozen=True, kw_only=True)
class FunctionObjective(Objective):
    """The numbers that a function returns. `needs_values` is False for a multirun without a direction and without a
    sampler: such a function may return anything."""

    space: Space
    needs_values: bool

    @classmethod
    def from_space(
        cls, compose: Compose, found: Enumeration, *, direction: Any, study_name: str | None
    ) -> FunctionObjective:
        """`direction` is "minimize", "maximize", or a list of them, one per number that the function returns. UserError
        if it is another one, HydraException if a setting cannot be composed."""
        named = direction if isinstance(direction, Sequence) and not isinstance(direction, str) else [direction]
        directions = [str(getattr(one, "name", one) or "minimize") for one in named]
        unknown = [one for one in directions if one not in ("minimize", "maximize")]
        if unknown or not directions:
            raise UserError(f"hydra.sweeper.direction = {direction}: must be minimize, maximize, or a list of them")
        for params in itertools.islice(found.known(), _COMPOSED):
            compose(found.space.overrides(params))
        return cls(
            directions=directions,
            worst=[math.inf if one == "minimize" else -math.inf for one in directions],
            study_name=study_name,
            space=found.space,
            needs_values=direction is not None or found.searching,
        )

    def open(self, book: Book, trials: TrialStore) -> FunctionSession:
        """UserError if the study began with other fixed overrides. A key that was fixed may be searched now; the
        reverse would give trials without the key, which look like the first ones."""
        name, now = trials.study.study_name, {**self.attributes({}), **dict.fromkeys(self.space.dimensions, _SEARCHED)}
        book.open(name)
        finished = [trial for trial in trials.all() if trial.state is TrialState.COMPLETE]
        begun = book.conditions
        if begun is None:  # a study of hydra-optuna-sweeper: each trial has the fixed overrides, and perhaps more
            known = {key: str(value) for trial in finished for key, value in trial.user_attrs.items() if key in now}
            searched = {key for trial in finished for key in trial.params if key in now}
            begun = {**now, **known, **dict.fromkeys(searched, _SEARCHED)}
        if finished:
            more = {key: value for key, value in now.items() if value == _SEARCHED}
            require_same_study(name, {**begun, **more}, now, "hydra.sweeper.study_name")
        book.set_conditions(now)
        book.begin_command()
        book.retry()
        return FunctionSession(self)

    def attributes(self, params: Params) -> dict[str, Any]:
        fixed = {key.lstrip("+"): text.partition("=")[2] for key, text in self.space.fixed.items()}
        return dict(redaction.tree(fixed))

    def overrides(self, replicate: Replicate) -> list[str]:
        return self.space.overrides(replicate.params)

    def values(self, returned: Any) -> list[float]:
        """The objectives, or ValueError if the function returned no numbers, or not as many as there are directions."""
        listed = returned if isinstance(returned, list | tuple) else [returned]
        try:
            numbers = [float(one) for one in listed]
        except (TypeError, ValueError):
            wanted = "a number" if len(self.directions) == 1 else f"{len(self.directions)} numbers"
            raise ValueError(
                f"the application returned {returned!r}; it must return {wanted}, one per hydra.sweeper.direction"
            ) from None
        if len(numbers) != len(self.directions):
            raise ValueError(
                f"the application returned {len(numbers)} numbers, but hydra.sweeper.direction names "
                f"{len(self.directions)}: {', '.join(self.directions)}"
            )
        return numbers


class FunctionSession(Session):
    """The jobs of one command: how many have ended, and the exceptions of those that failed."""

    objective: FunctionObjective

    def __init__(self, objective: FunctionObjective):
        super().__init__(objective)
        self._failures: list[Exception] = []
        self._ended = 0

    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        self._ended += 1
        error, values = exception_of(returned), []
        if error is None:
            try:
                values = self.objective.values(returned.return_value)
            except ValueError as unsuitable:
                error = unsuitable if self.objective.needs_values else None
        if error is not None:
            self._failures.append(error)
            why = str(error) if isinstance(error, JobFailed) else described(error)
            log.warning("%s", f"trial {replicate.trial} failed: {first_line(why)}\n{traceback_of(error)}".rstrip())
            return Entry(outcome="failed", final=False)
        if any(math.isnan(number) for number in values):
            log.warning("trial %d returned %s: not a number", replicate.trial, returned.return_value)
            return Entry(outcome="failed", values=tuple(values))
        return Entry(outcome="ok", values=tuple(values))

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """Whether more jobs have failed than `max_failure_rate`, a fraction of the jobs that have ended. None is 0."""
        return self._ended >= at_least and len(self._failures) / self._ended > (max_failure_rate or 0.0)

    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raise the exception of the last job that failed, if too many have failed."""
        if self.gives_up(max_failure_rate, at_least=1):
            log.error(
                "%d of %d jobs failed, with max_failure_rate=%s.", len(self._failures), self._ended, max_failure_rate
            )
            raise self._failures[-1]
