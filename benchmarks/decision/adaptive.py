"""`study.replicates=adaptive` on simulated studies: how often it drops the right pick, and how many seeds it saves.

    python -m benchmarks.decision.adaptive

STUDIES studies for each row, of the simulator of `benchmarks/decision/calibration.py`, with 5 seeds at most and 1,000
validation examples. Memory is in random order. A study ends where one setting
is in contention, whose further seeds are not counted, or all settings in contention have five seeds.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.decision.calibration import simulate
from benchmarks.results import save
from sweep.study.adaptive_seeds import FIRST, in_contention

STUDIES, SEEDS, EXAMPLES = 150, 5, 1000


def run(rng: np.random.Generator, n_examples: int | None = EXAMPLES) -> tuple[bool, bool, float]:
    """Whether the right pick was dropped; whether the selection by the means of the seeds that ran is right; and the
    share of the seeds that ran."""
    study = simulate(rng, SEEDS, EXAMPLES)
    runs, count = study.scores.mean(axis=2), len(study.truth)
    memory = {k: float(size) for k, size in enumerate(rng.permutation(count) + 10.0)}
    reaching = np.flatnonzero(study.truth >= 0.99 * study.truth.max() - 1e-12)
    right = min(reaching, key=memory.__getitem__)
    given = np.full(count, FIRST)
    dropped = False
    while True:
        scores = {k: dict(enumerate(runs[k, : given[k]])) for k in range(count)}
        found = in_contention(scores, memory, threshold=0.99, higher_is_better=True, n_examples=n_examples)
        dropped = dropped or right not in found
        more = [k for k in found if given[k] < SEEDS]
        if len(found) < 2 or not more:
            means = np.array([np.mean(list(one.values())) for one in scores.values()])
            pick = min(np.flatnonzero(means >= 0.99 * means.max()), key=memory.__getitem__)
            return dropped, bool(pick == right), float(given.sum() / (count * SEEDS))
        given[more] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES)
    options = parser.parse_args()
    figures: dict[str, Any] = {"studies": options.studies}
    for name, n_examples in (("examples known", EXAMPLES), ("examples not known", None)):
        rng = np.random.default_rng(0)
        found = np.array([run(rng, n_examples) for _ in range(options.studies)])
        figures[name] = {
            "right_pick_dropped": found[:, 0].mean(),
            "right_selection": found[:, 1].mean(),
            "seeds_run": found[:, 2].mean(),
        }
    save("decision_adaptive", figures)


if __name__ == "__main__":
    main()
