"""The front of a study while it runs, as one line."""

from __future__ import annotations

from sweep.core.record import Outcome, Record
from sweep.study import pareto_front


def run(setting: str, score: float, memory: float) -> Record:
    measured = {"score": score, "max_memory_allocated": memory}
    return Record(variant="v", setting=setting, seed=0, outcome=Outcome.OK, measurements=measured)


def test_equal_settings_are_one_part_of_the_line():
    runs = [*(run(f"s{i}", 0.5, 2**30) for i in range(20)), run("large", 0.6, 2**31), run("worse", 0.4, 2**31)]
    front = pareto_front.front(runs, "max_memory_allocated", True)
    assert len(front) == 21
    assert pareto_front.line(front) == "  front: s0 and 19 equal 0.5000 at 1.0 GiB · large 0.6000 at 2.0 GiB"
