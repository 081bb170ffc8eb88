"""How often verdicts are false, and how often they are given, on simulated studies with known true scores.

    python -m benchmarks.decision.calibration

1,000 studies of 4 to 12 settings, 1 to 5 seeds and 300 to 3,000 examples. Scores are binary (in half of the studies) or
continuous. They are the sum of three effects: the example (it is hard for all settings, so results on it are
correlated), the example for this setting, and the seed. The true score is the expectation over seeds and examples:
exact for continuous scores, and for binary ones the closed form of a probit with normal effects, Φ(μ / √(1 + Σσ²)).
Gaps to the best are wide, narrow, or at the threshold, where errors are likely. Seeds spread by up to 1.5% of the
score, in a fifth of the studies very differently between settings.

Figures to reach: of the settings with verdict `meets`, at most 5% are below the threshold; of those with verdict
`fails`, at most 5% reach it. Power is the share of the settings above (below) the threshold that get the right verdict;
`power` holds it by seeds and examples, over GRID_STUDIES studies each. `benchmarks/decision/shapes.py` tests studies
for which verdicts are likely to be wrong.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from analysis.decision.noninferiority import FAILS, MEETS, verdicts
from analysis.decision.score_noise import ScoreNoise, from_examples
from analysis.decision.threshold import Rule
from benchmarks.results import save

STUDIES, GRID_STUDIES = 1000, 200
SEEDS, EXAMPLES = (1, 2, 3, 5, 10), (300, 1000, 3000)


class Simulated(NamedTuple):
    """`scores`: settings × seeds × examples; `truth`: the expected score of each setting."""

    scores: np.ndarray
    truth: np.ndarray
    kind: str


def simulate(rng: np.random.Generator, seeds: int | None = None, examples: int | None = None) -> Simulated:
    """One study. The best setting comes first, the order of the others is random."""
    settings = int(rng.integers(4, 13))
    examples = examples or int(rng.integers(300, 3001))
    seeds = seeds or int(rng.integers(1, 6))
    best = rng.uniform(0.4, 0.9)
    gaps = {
        "wide": rng.uniform(0, 0.15, settings),
        "narrow": rng.uniform(0, 0.03, settings),
        "at the threshold": rng.choice([0, 0.0098, 0.0105, 0.012, 0.05], settings),
    }
    shape = str(rng.choice(list(gaps)))
    truth = best * (1 - gaps[shape])
    truth[0] = best
    spread = rng.uniform(0.001, 0.015) * best * np.ones(settings)
    if rng.random() < 0.2:
        spread *= np.exp(rng.normal(0, 0.7, settings))
    hard, own = rng.normal(size=examples), rng.normal(size=(settings, 1, examples))
    seed, answer = rng.normal(size=(settings, seeds, 1)), rng.normal(size=(settings, seeds, examples))
    if rng.random() < 0.5:
        return Simulated(_binary(rng, truth, spread, hard, own, seed, answer), truth, f"binary, {shape}")
    a, b, e = rng.uniform(0.1, 0.3), rng.uniform(0.02, 0.1), rng.uniform(0.02, 0.15)
    scores = truth[:, None, None] + a * hard + b * own + spread[:, None, None] * seed + e * answer
    return Simulated(scores, truth, f"continuous, {shape}")


def _binary(
    rng: np.random.Generator,
    truth: np.ndarray,
    spread: np.ndarray,
    hard: np.ndarray,
    own: np.ndarray,
    seed: np.ndarray,
    answer: np.ndarray,
) -> np.ndarray:
    a, b = rng.uniform(0.5, 1.5), rng.uniform(0.1, 0.7)
    without_seeds = np.sqrt(1 + a**2 + b**2)
    latent = spread / stats.norm.pdf(stats.norm.ppf(truth)) * without_seeds  # spread on the scale of the probit
    mean = stats.norm.ppf(truth) * np.sqrt(without_seeds**2 + latent**2)
    return (mean[:, None, None] + a * hard + b * own + latent[:, None, None] * seed + answer > 0).astype(float)


def evidence_of(study: Simulated, with_examples: bool) -> ScoreNoise:
    settings, seeds, examples = study.scores.shape
    flat = study.scores.reshape(settings * seeds, examples)
    made = from_examples(flat, np.repeat(np.arange(settings), seeds), [str(i) for i in range(settings)])
    return made if with_examples else without_examples(made)


def without_examples(noise: ScoreNoise) -> ScoreNoise:
    """The same without the results of single examples."""
    return noise._replace(own_variance=None, covariance=None, n_examples=None, answer_variance=None)


def measure(studies: list[Simulated], rule: Rule, with_examples: bool = True) -> dict[str, float | int]:
    """False shares and power over many studies."""
    called = {MEETS: [0, 0, 0], FAILS: [0, 0, 0]}  # verdicts, false ones, settings of the kind
    for study in studies:
        verdict = verdicts(evidence_of(study, with_examples), rule).verdict
        meeting = study.truth >= rule.score_threshold(study.truth.max()) - 1e-12
        for name, true in ((MEETS, meeting), (FAILS, ~meeting)):
            counts = called[name]
            counts[0] += int((verdict == name).sum())
            counts[1] += int(((verdict == name) & ~true).sum())
            counts[2] += int(true.sum())
    figures: dict[str, float | int] = {}
    for name, (count, false, true) in called.items():
        figures |= {
            f"called_{name}": count,
            f"false_{name}_share": false / count if count else 0.0,
            f"power_{name}": (count - false) / true if true else 0.0,
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.process_time()
    rng = np.random.default_rng(options.seed)
    figures: dict[str, Any] = {"studies": options.studies}
    mixed = [simulate(rng) for _ in range(options.studies)]
    for threshold in (0.99, 0.97, 0.95):
        figures |= _named(f"threshold_{threshold}", measure(mixed, Rule(threshold)))
    figures |= _named("without_examples", measure(mixed, Rule(), with_examples=False))
    for kind in sorted({study.kind for study in mixed}):
        some = [study for study in mixed if study.kind == kind]
        figures |= _named(kind.replace(", ", "_").replace(" ", "_"), measure(some, Rule()))
    figures["power"] = {f"threshold {threshold}": _power(rng, Rule(threshold)) for threshold in (0.99, 0.95)}
    figures["processor_seconds"] = time.process_time() - started
    save("decision_calibration", figures)


def _power(rng: np.random.Generator, rule: Rule) -> dict[str, dict[str, str]]:
    """The power of both verdicts by seeds, then by examples."""
    table: dict[str, dict[str, str]] = {}
    for seeds in SEEDS:
        row = table.setdefault(f"{seeds} seed{'s' if seeds > 1 else ''}", {})
        for examples in EXAMPLES:
            found = measure([simulate(rng, seeds, examples) for _ in range(GRID_STUDIES)], rule)
            row[f"{examples} examples"] = f"meets {found['power_meets']:.0%}, fails {found['power_fails']:.0%}"
    return table


def _named(name: str, figures: dict[str, float | int]) -> dict[str, float | int]:
    return {f"{name}.{key}": value for key, value in figures.items()}


if __name__ == "__main__":
    main()
