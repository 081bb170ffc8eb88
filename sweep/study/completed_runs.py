"""The runs of a study that earlier commands have done, as MLflow records them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sweep.core.errors import UserError
from sweep.core.record import LAUNCHED, Record


class CompletedRuns:
    """By setting and seed: the runs whose result is valid, and how often the other runs were killed while their
    coordinator was alive. `digests` are those of the settings' values now: UserError if a setting had other values.
    `is_valid` returns whether a run that was never launched is still out of memory."""

    def __init__(self, records: Iterable[Record], digests: Mapping[str, str], is_valid: Callable[[Record], bool]):
        self._done: dict[str, dict[int, Record]] = {}
        self.attempts: Counter[tuple[str, int]] = Counter()
        for record in records:
            if record.facts.get(LAUNCHED) == "false" and not is_valid(record):
                continue
            if record.outcome.final:
                digest = record.facts.get("setting_digest")
                if digests.get(record.setting, digest) != digest:
                    raise UserError(
                        f"setting {record.setting} was run with other values of its variant in this study; in a study, "
                        "a name has one meaning. Choose another study.name, or another variant.name"
                    )
                self._done.setdefault(record.setting, {})[record.seed] = record
            elif record.facts.get("exit_kind") == "crashed":
                self.attempts[record.setting, record.seed] += 1

    def done(self, setting: str) -> Mapping[int, Record]:
        return self._done.get(setting, {})

    def all(self) -> list[Record]:
        return [record for found in self._done.values() for record in found.values()]
