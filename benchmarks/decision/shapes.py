"""How often verdicts are false, and how often they are given, on studies that are chosen to be difficult.

    python -m benchmarks.decision.shapes

This checks `decision_calibration` with another simulator. An example is easy (all settings are right), impossible (all
are wrong), or contested. On a contested example, a Beta distribution gives each seed of a setting its probability of a
right answer, and the random draws are correlated between seeds. The true score is the expectation, which is exact.
Continuous scores have normal, heavy-tailed (Student's t, 2.5 degrees of freedom) or skewed (log-normal) noise of
examples.

Each shape is a random study (4 to 12 settings, 2 to 5 seeds, 300 to 3,000 examples, gaps to the best that are wide,
narrow, or just above or below the threshold) in which one property is extreme. Verdicts from seeds alone are for
comparison: they use no results of single examples, and their true score is over all examples, not over the sample.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np

from analysis.decision.noninferiority import FAILS, MEETS, verdicts
from analysis.decision.score_noise import ScoreNoise, from_examples
from analysis.decision.threshold import Rule
from benchmarks.decision.calibration import without_examples
from benchmarks.results import save

STUDIES = 300
THRESHOLDS = (0.99, 0.97)
Rng = np.random.Generator
GAPS: Mapping[str, Callable[[Rng, int], np.ndarray]] = {
    "wide": lambda rng, n: rng.uniform(0, 0.2, n),
    "narrow": lambda rng, n: rng.uniform(0, 0.025, n),
    "below": lambda rng, n: rng.uniform(0.0101, 0.014, n),
    "above": lambda rng, n: rng.uniform(0.006, 0.0099, n),
    "edge": lambda rng, n: rng.choice([0.0, 0.0095, 0.0102, 0.0115, 0.02, 0.06], n),
    "far": lambda rng, n: rng.uniform(0.03, 0.1, n),
    "equal": lambda rng, n: np.zeros(n),
    "collapsed": lambda rng, n: rng.choice([0.0, 0.005, 0.95], n),
    "one alone": lambda rng, n: rng.uniform(0.4, 0.41, n),
}


@dataclass
class Shape:
    """A study before its noise. `spread` is the SD of a setting's true score over seeds, of the best score."""

    gaps: np.ndarray
    seeds: np.ndarray
    spread: np.ndarray
    examples: int
    best: float
    binary: bool
    noise: str = "normal"
    contested: float = 0.5
    kept: float = 0.4
    group: int = 1
    collapse: float = 0.0
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.truth = self.best * (1 - self.gaps)


def usual(rng: Rng, settings: int | None = None, gaps: str | None = None) -> Shape:
    count = settings or int(rng.integers(4, 13))
    kind = gaps or str(rng.choice(["wide", "narrow", "edge", "below", "above", "far"]))
    made = GAPS[kind](rng, count)
    made[rng.integers(count)] = 0.0
    return Shape(
        gaps=made,
        seeds=np.full(count, rng.integers(2, 6)),
        spread=np.full(count, np.exp(rng.uniform(np.log(0.001), np.log(0.02)))),
        examples=int(rng.integers(300, 3001)),
        best=rng.uniform(0.3, 0.92),
        binary=bool(rng.random() < 0.5),
        contested=rng.uniform(0.15, 0.8),
        kept=rng.uniform(0, 0.8),
    )


def _changed(change: Callable[[Rng, Shape], dict[str, Any]], **usual_as: Any) -> Callable[[Rng], Shape]:
    def made(rng: Rng) -> Shape:
        shape = usual(rng, **usual_as)
        return replace(shape, **change(rng, shape))

    return made


def _noisy_best(rng: Rng, shape: Shape) -> dict[str, Any]:
    spread = np.full(len(shape.gaps), 0.003)
    spread[shape.gaps.argmin()] = 0.03
    return {"seeds": shape.seeds * 0 + 2, "spread": spread}


SHAPES: Mapping[str, Callable[[Rng], Shape]] = {
    "usual": usual,
    "1 seed": _changed(lambda rng, s: {"seeds": s.seeds * 0 + 1}),
    "2 seeds": _changed(lambda rng, s: {"seeds": s.seeds * 0 + 2}),
    "1 to 5 seeds, unequally": _changed(lambda rng, s: {"seeds": rng.integers(1, 6, len(s.gaps))}),
    "2 seeds, spread 0.1% or 2%": _changed(
        lambda rng, s: {"seeds": s.seeds * 0 + 2, "spread": np.where(rng.random(len(s.gaps)) < 0.5, 0.001, 0.02)}
    ),
    "spread log-normal over settings": _changed(
        lambda rng, s: {"spread": s.spread * np.exp(rng.normal(0, 1.2, len(s.gaps)))}
    ),
    "2 seeds, the best spreads ten times the others": _changed(_noisy_best),
    "spread 0.05%": _changed(lambda rng, s: {"spread": s.spread * 0 + 0.0005}),
    "spread 3%": _changed(lambda rng, s: {"spread": s.spread * 0 + 0.03}),
    "no spread, answers kept": _changed(lambda rng, s: {"spread": s.spread * 0, "kept": 1.0, "binary": True}),
    "a run in seven loses 5%": _changed(lambda rng, s: {"collapse": 0.15, "binary": False}),
    "12 equal": lambda rng: usual(rng, 12, "equal"),
    "12, all others just below": lambda rng: usual(rng, 12, "below"),
    "12, all others just above": lambda rng: usual(rng, 12, "above"),
    "4, all others just below, 2 seeds": _changed(
        lambda rng, s: {"seeds": s.seeds * 0 + 2}, settings=4, gaps="below"
    ),
    "2 settings": lambda rng: usual(rng, 2),
    "one far above": lambda rng: usual(rng, gaps="one alone"),
    "some collapsed to 5%": lambda rng: usual(rng, gaps="collapsed"),
    "heavy tails": _changed(lambda rng, s: {"binary": False, "noise": "heavy"}),
    "skewed": _changed(lambda rng, s: {"binary": False, "noise": "skewed"}),
    "near 1": _changed(
        lambda rng, s: {"binary": True, "best": rng.uniform(0.985, 0.999), "contested": 0.04, "spread": s.spread / 4},
        gaps="edge",
    ),
    "near 0": _changed(
        lambda rng, s: {"binary": True, "best": rng.uniform(0.01, 0.06), "contested": 0.15, "spread": s.spread * 5}
    ),
    "300 examples": _changed(lambda rng, s: {"examples": 300}),
    "3,000 examples, 5 seeds": _changed(lambda rng, s: {"examples": 3000, "seeds": s.seeds * 0 + 5}),
    "examples in groups, not named": _changed(lambda rng, s: {"group": int(rng.integers(3, 12))}),
}  # fmt: skip


def drawn(rng: Rng, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs × examples, each run's setting, and each setting's true score."""
    count = max(30, shape.examples // shape.group)
    made, truth = (_right_or_wrong if shape.binary else _continuous)(rng, shape, count)
    values = np.repeat(np.concatenate(made), shape.group, axis=1)
    if shape.group > 1 and not shape.binary:
        values = values + 0.1 * rng.normal(size=values.shape)
    lost = 0.05 * shape.best * (rng.random((len(values), 1)) < shape.collapse)
    run_of = np.repeat(np.arange(len(shape.gaps)), shape.seeds)
    return values - lost, run_of, truth - 0.05 * shape.best * shape.collapse


def _right_or_wrong(rng: Rng, shape: Shape, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    truth = shape.truth
    contested = min(1.0, max(shape.contested, 1.05 * np.ptp(truth) + 0.001))
    least = max(0.0, truth.max() - 0.97 * contested)
    easy = rng.uniform(least, max(least, min(truth.min() - 0.02 * contested, 1 - contested)))
    chance = np.clip((truth - easy) / contested, 1e-6, 1 - 1e-6)
    kind = rng.random(count)
    made = []
    for setting, p in enumerate(chance):
        coin = rng.random(count)
        variance = min((shape.spread[setting] * shape.best / contested) ** 2, 0.9 * p * (1 - p))
        size = p * (1 - p) / variance - 1 if variance else 0.0
        runs = []
        for _ in range(shape.seeds[setting]):
            of_run = rng.beta(p * size, (1 - p) * size) if size else p
            thrown = np.where(rng.random(count) < shape.kept, coin, rng.random(count))
            runs.append(np.where(kind < easy, 1.0, (kind < easy + contested) & (thrown < of_run)))
        made.append(np.array(runs))
    return made, easy + contested * chance


def _continuous(rng: Rng, shape: Shape, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    def noise() -> np.ndarray:
        if shape.noise == "heavy":
            return rng.standard_t(2.5, count) / np.sqrt(5)
        if shape.noise == "skewed":
            return (np.exp(1.2 * rng.normal(size=count)) - np.exp(0.72)) / np.sqrt((np.exp(1.44) - 1) * np.exp(1.44))
        return rng.normal(size=count)

    size, own, single = rng.uniform(0.1, 0.4) * shape.best, rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.6)
    hard, made = noise(), []
    for setting, truth in enumerate(shape.truth):
        common, spread = hard + own * noise(), shape.spread[setting] * shape.best
        seeds = range(shape.seeds[setting])
        made.append(np.array([truth + spread * rng.normal() + size * (common + single * noise()) for _ in seeds]))
    return made, shape.truth


def study(rng: Rng, shape: Callable[[Rng], Shape]) -> tuple[ScoreNoise, np.ndarray]:
    values, run_of, truth = drawn(rng, shape(rng))
    return from_examples(values, run_of, [str(i) for i in range(len(truth))]), truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.process_time()
    figures: dict[str, Any] = {"studies_per_shape": options.studies}
    for name, shape in SHAPES.items():
        rng = np.random.default_rng([options.seed, crc32(name.encode())])
        studies = [study(rng, shape) for _ in range(options.studies)]
        for threshold in THRESHOLDS:
            figures[f"{name}; threshold {threshold}"] = _shown(counts(studies, Rule(threshold)))
        blind = [(without_examples(noise), truth) for noise, truth in studies]
        figures[f"{name}; threshold {THRESHOLDS[0]}, from seeds alone"] = _shown(counts(blind, Rule(THRESHOLDS[0])))
    figures["processor_seconds"] = time.process_time() - started
    save("decision_shapes", figures)


def _shown(found: Mapping[str, int]) -> str:
    parts = []
    for verdict, kind in ((MEETS, "meeting"), (FAILS, "failing")):
        called, false = found[f"called_{verdict}"], found[f"falsely_{verdict}"]
        share = f" ({false / called:.1%})" if called else ""
        parts.append(f"{called} of {found[kind]} called {verdict}, {false} falsely{share}")
    return "; ".join(parts)


def counts(studies: list[tuple[ScoreNoise, np.ndarray]], rule: Rule) -> dict[str, int]:
    """Of all settings: how many reach (miss) the threshold, how many have that verdict, and how many of these
    falsely."""
    found = dict.fromkeys(("meeting", "called_meets", "falsely_meets", "failing", "called_fails", "falsely_fails"), 0)
    for noise, truth in studies:
        verdict = verdicts(noise, rule).verdict
        meeting = truth >= rule.score_threshold(truth.max()) - 1e-12
        for name, true in ((MEETS, meeting), (FAILS, ~meeting)):
            found["meeting" if name == MEETS else "failing"] += int(true.sum())
            found[f"called_{name}"] += int((verdict == name).sum())
            found[f"falsely_{name}"] += int(((verdict == name) & ~true).sum())
    return found


if __name__ == "__main__":
    main()
