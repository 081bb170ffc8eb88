"""The decision on parts of 40 real runs: how many settings get a right verdict, and how many a wrong one.

    python -m benchmarks.decision.real_runs

`scan_40_runs.npz` has the 40 runs of `experiment=quickstart seed=0,…,9 task.data.n_validation=1600`: four settings × 10
seeds × 1,600 answers (right or wrong, in bits), and the memory of each setting. All 40 runs stand for the truth. PARTS
random parts of some seeds and some examples are the studies. `unpaired` gives the runs of each setting other seeds, so
that the luck that settings share at a seed is not taken out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.decision.noninferiority import FAILS, MEETS, verdicts
from analysis.decision.score_noise import ScoreNoise, from_examples
from analysis.decision.seed_variance import two_way
from analysis.decision.threshold import Rule
from benchmarks.results import save

PARTS = 100
SIZES = ((2, 400), (3, 400), (2, 1200), (3, 1200), (4, 1200), (5, 1200))


class Runs(NamedTuple):
    """`right`: settings × seeds × examples, 0 or 1; `memory` in bytes."""

    settings: list[str]
    right: np.ndarray
    memory: np.ndarray

    @property
    def reaching(self) -> np.ndarray:
        """Whether each setting reaches 99% of the best, by all runs."""
        means = self.right.mean(axis=(1, 2))
        return means >= 0.99 * means.max()


def load() -> Runs:
    with np.load(Path(__file__).with_name("scan_40_runs.npz")) as stored:
        shape = stored["shape"]
        right = np.unpackbits(stored["right"])[: np.prod(shape)].reshape(shape).astype(float)
        return Runs([str(name) for name in stored["settings"]], right, stored["memory"])


def part(runs: Runs, rng: np.random.Generator, seeds: int, examples: int) -> np.ndarray:
    """Some seeds and some examples, the same ones for all settings."""
    some = rng.choice(runs.right.shape[1], seeds, replace=False)
    return runs.right[:, some][:, :, rng.choice(runs.right.shape[2], examples, replace=False)]


def noise_of(right: np.ndarray, paired: bool = True) -> ScoreNoise:
    settings, seeds, examples = right.shape
    run_of = np.repeat(np.arange(settings), seeds)
    seed_of = np.tile(np.arange(seeds), settings) if paired else np.arange(settings * seeds)
    return from_examples(right.reshape(-1, examples), run_of, [str(i) for i in range(settings)], seed_of=seed_of)


def settled(noise: ScoreNoise, reaching: np.ndarray) -> tuple[float, float]:
    """The share of the settings with a right verdict, and with a wrong one."""
    found = verdicts(noise, Rule()).verdict
    return (
        float((found == np.where(reaching, MEETS, FAILS)).mean()),
        float((found == np.where(reaching, FAILS, MEETS)).mean()),
    )


def measure(runs: Runs, seeds: int, examples: int, parts: int) -> dict[str, float]:
    rng = np.random.default_rng([seeds, examples])
    studies = [part(runs, rng, seeds, examples) for _ in range(parts)]
    figures = {}
    for name, paired in (("unpaired", False), ("paired", True)):
        found = np.array([settled(noise_of(study, paired), runs.reaching) for study in studies])
        figures |= {f"{name}_right": found[:, 0].mean(), f"{name}_wrong": found[:, 1].mean()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=PARTS)
    options = parser.parse_args()
    runs = load()
    fit = two_way(runs.right.mean(axis=2))
    figures: dict[str, Any] = {
        "shared_sd": fit.shared**0.5,
        "own_sd": fit.pooled**0.5,
        "all_runs_paired": list(map(str, verdicts(noise_of(runs.right), Rule()).verdict)),
        "all_runs_unpaired": list(map(str, verdicts(noise_of(runs.right, False), Rule()).verdict)),
    }
    for seeds, examples in SIZES:
        figures[f"{seeds} seeds, {examples} examples"] = measure(runs, seeds, examples, options.parts)
    save("decision_real_runs", figures)


if __name__ == "__main__":
    main()
