"""Whether the chances of a report are true: coverage, calibration, and the quality of the picks, by two simulators.

    python -m benchmarks.decision.chances

STUDIES studies of each simulator (`calibration.py`, `other_simulator.py`), neither of which the method uses. Memory is
in random order in half of the studies; in the others, what needs more memory tends to score more. The figures:

- `coverage` of the true score by the 95% interval, with its median half-width as a share of the best score;
- `calibration`: settings by their stated chance to reach the threshold, in tenths: mean stated, share that do, count;
- `verdicts`: power and false shares of the tests, and of "reaches it" and "misses it";
- `right_pick`: studies by the stated chance of their likeliest pick: mean stated, share right, count;
- `picks`: of the point-estimate rule, the likeliest, and least expected loss at prices 0.5, 2 and 4: share right, share
  that reaches the threshold, mean memory overspent, mean miss of the threshold (of the best score).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from analysis.decision.noninferiority import FAILS, MEETS, verdicts
from analysis.decision.posterior import posterior
from analysis.decision.threshold import Rule
from analysis.decision.verdict_words import SURE
from benchmarks.decision import calibration, other_simulator
from benchmarks.decision.calibration import Simulated, evidence_of
from benchmarks.results import save
from sweep.statistics.chances import Chances

STUDIES = 250
PRICES = (0.5, 2.0, 4.0)
RULE = Rule(0.99)


class Seen(NamedTuple):
    """One study: its truth, and what is stated of it."""

    truth: np.ndarray
    memory: np.ndarray
    means: np.ndarray
    stated: Chances
    tests: np.ndarray
    seeds: int

    @property
    def reaching(self) -> np.ndarray:
        return self.truth >= 0.99 * self.truth.max() - 1e-12


def look(study: Simulated, rng: np.random.Generator) -> Seen:
    count = len(study.truth)
    order = rng.permutation(count)
    if rng.random() < 0.5:
        order = np.argsort(np.argsort(study.truth + study.truth.std() * rng.normal(size=count)))
    memory = np.cumprod(np.exp(rng.uniform(0.02, 0.3, count)))[order]
    noise = evidence_of(study, True)
    stated = posterior(noise, RULE, memory).chances
    return Seen(study.truth, memory, noise.scores, stated, verdicts(noise, RULE).verdict, study.scores.shape[1])


def figures_of(seen: list[Seen]) -> dict[str, Any]:
    chance = np.concatenate([one.stated.p_reaches for one in seen])
    reaching = np.concatenate([one.reaching for one in seen])
    tests = np.concatenate([one.tests for one in seen])
    found: dict[str, Any] = {"coverage": {}, "brier": float(((chance - reaching) ** 2).mean())}
    for seeds in sorted({one.seeds for one in seen}):
        some = [one for one in seen if one.seeds == seeds]
        inside = np.concatenate([(one.stated.low <= one.truth) & (one.truth <= one.stated.high) for one in some])
        width = np.concatenate([(one.stated.high - one.stated.low) / 2 / one.truth.max() for one in some])
        found["coverage"][f"{seeds} seeds"] = f"{inside.mean():.1%}, ± {np.median(width):.1%}"
    found["calibration"] = _by_tenth(chance, reaching)
    found["verdicts"] = {
        "tests": _power(tests == MEETS, tests == FAILS, reaching),
        "chances": _power(chance >= SURE, chance <= 1 - SURE, reaching),
    }
    likeliest = [int(one.stated.p_right_pick.argmax()) for one in seen]
    stated = np.array([one.stated.p_right_pick[k] for one, k in zip(seen, likeliest, strict=True)])
    right = np.array([_outcome(one, k)[0] for one, k in zip(seen, likeliest, strict=True)])
    found["right_pick"] = _by_tenth(stated, right)
    found["picks"] = {"point-estimate rule": _quality(seen, _by_means), "likeliest": _quality(seen, _likeliest)}
    for price in PRICES:
        found["picks"][f"least expected loss, price {price:g}"] = _quality(
            seen, lambda one, price=price: int(one.stated.loss(price).argmin())
        )
    return found


def _by_means(one: Seen) -> int:
    return int(np.where(one.means >= 0.99 * one.means.max(), one.memory, np.inf).argmin())


def _likeliest(one: Seen) -> int:
    return int(one.stated.p_right_pick.argmax())


def _by_tenth(stated: np.ndarray, true: np.ndarray) -> list[str]:
    tenth = np.minimum((stated * 10).astype(int), 9)
    return [
        f"{stated[tenth == i].mean():.2f} → {true[tenth == i].mean():.2f} ({(tenth == i).sum()})"
        for i in range(10)
        if (tenth == i).any()
    ]


def _power(meets: np.ndarray, fails: np.ndarray, reaching: np.ndarray) -> str:
    parts = []
    for name, called, true in (("reaches", meets, reaching), ("misses", fails, ~reaching)):
        false = (called & ~true).sum() / max(1, called.sum())
        parts.append(f"{name} {(called & true).sum() / max(1, true.sum()):.1%}, {false:.1%} false")
    return "; ".join(parts)


def _outcome(one: Seen, pick: int) -> tuple[bool, bool, float, float]:
    """Whether a pick is right, whether it reaches the threshold, its memory in excess if so, and its miss."""
    least = float(one.memory[one.reaching].min())
    reaches = bool(one.reaching[pick])
    missed = max(0.0, 0.99 - one.truth[pick] / one.truth.max())
    return reaches and one.memory[pick] == least, reaches, (one.memory[pick] / least - 1) * reaches, missed


def _quality(seen: list[Seen], choose: Callable[[Seen], int]) -> str:
    right, reaches, spent, missed = np.array([_outcome(one, choose(one)) for one in seen], float).mean(axis=0)
    return f"right {right:.1%}, reaches {reaches:.1%}, memory in excess {max(0.0, spent):.1%}, missed by {missed:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES)
    options = parser.parse_args()
    started = time.process_time()
    figures: dict[str, Any] = {"studies": options.studies}
    for name, simulate in (("calibration", calibration.simulate), ("other_simulator", other_simulator.simulate)):
        rng = np.random.default_rng(11)
        figures[name] = figures_of([look(simulate(rng), rng) for _ in range(options.studies)])
    figures["processor_seconds"] = time.process_time() - started
    save("decision_chances", figures)


if __name__ == "__main__":
    main()
