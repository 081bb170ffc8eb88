"""Any Hydra application as a study: its function returns the objectives, as hydra-optuna-sweeper has it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus

from sweep.core.errors import UserError, first_line
from sweep.hydra_compat.composition import Compositions
from sweep.study.objectives.base import Objective, Replicate
from sweep.study.search.space import Params, Space

if TYPE_CHECKING:
    from sweep.study.trial_store import Entry, Seed, TrialStore

log = logging.getLogger(__name__)
_COMPOSED = 64  # settings, before anything is launched: a key that the config lacks is missing in all


class FunctionObjective(Objective):
    """`direction` is "minimize", "maximize", or a list of them, one per number that the function returns.

    Raises:
        UserError: for another direction.
    """

    def __init__(self, compositions: Compositions, direction: Any, study_name: str | None):
        self._compositions = compositions
        self._plain = direction is None  # a sweep for its own sake: what the function returns is nobody's business
        named = direction if isinstance(direction, Sequence) and not isinstance(direction, str) else [direction]
        self.directions = [str(getattr(one, "name", one) or "minimize") for one in named]
        unknown = [one for one in self.directions if one not in ("minimize", "maximize")]
        if unknown or not self.directions:
            raise UserError(f"hydra.sweeper.direction = {direction}: must be minimize, maximize, or a list of them")
        self.metric_names = None
        self.worst = [math.inf if one == "minimize" else -math.inf for one in self.directions]
        self.study_name = study_name
        self._failures: list[JobReturn] = []
        self._ended = 0
        self._space: Space | None = None

    def seeds(self) -> tuple[Seed, ...]:
        return (None,)

    def check(self, space: Space, settings: Sequence[Params], searching: bool) -> None:
        self._space = space
        self._searching = searching
        for params in itertools.islice(settings, _COMPOSED):  # raises Hydra's own complaint
            self._compositions.of(space.overrides(params))

    def open(self, trials: TrialStore, settings: Sequence[Params] | None) -> None:
        return

    def attributes(self, params: Params) -> dict[str, Any]:
        assert self._space is not None
        return {key: override.partition("=")[2] for key, override in self._space.fixed.items()}

    def overrides(self, replicate: Replicate) -> list[str]:
        assert self._space is not None
        return self._space.overrides(replicate.params)

    def entry(self, replicate: Replicate, returned: JobReturn) -> Entry:
        from sweep.study.trial_store import Entry

        self._ended += 1
        value = returned._return_value
        if returned.status != JobStatus.COMPLETED:
            self._failures.append(returned)
            log.warning("trial %d failed: %s: %s", replicate.trial, type(value).__name__, first_line(value))
            return Entry(outcome="failed", final=False)
        try:
            values = self._values(value)
        except ValueError as error:
            if self._plain and not self._searching:
                return Entry(outcome="ok")
            self._failures.append(JobReturn(status=JobStatus.FAILED, _return_value=error))
            log.warning("trial %d failed: %s", replicate.trial, error)
            return Entry(outcome="failed", final=False)
        if any(math.isnan(number) for number in values):
            log.warning("trial %d returned %s: not a number, so it says nothing", replicate.trial, value)
            return Entry(outcome="failed", values=tuple(values))
        return Entry(outcome="ok", values=tuple(values))

    def _values(self, value: Any) -> list[float]:
        listed = value if isinstance(value, list | tuple) else [value]
        try:
            numbers = [float(one) for one in listed]
        except (TypeError, ValueError):
            raise ValueError(
                f"the application returned {value!r}; it must return "
                f"{'a number' if len(self.directions) == 1 else f'{len(self.directions)} numbers'}, one per "
                "hydra.sweeper.direction"
            ) from None
        if len(numbers) != len(self.directions):
            raise ValueError(
                f"the application returned {len(numbers)} numbers, but hydra.sweeper.direction names "
                f"{len(self.directions)}: {', '.join(self.directions)}"
            )
        return numbers

    def gives_up(self, max_failure_rate: float | None, at_least: int) -> bool:
        """More of the jobs have failed than `max_failure_rate`, a share of those that have ended; null is none."""
        return self._ended >= at_least and len(self._failures) / self._ended > (max_failure_rate or 0.0)

    def require_complete(self, max_failure_rate: float | None) -> None:
        """Raises what the last job raised that failed, where too many have."""
        if self.gives_up(max_failure_rate, at_least=1):
            log.error(
                "%d of %d jobs failed, with max_failure_rate=%s.", len(self._failures), self._ended, max_failure_rate
            )
            _ = self._failures[-1].return_value  # raises, with the job's own traceback

    def close(self, trials: TrialStore, finished: bool) -> None:
        return
