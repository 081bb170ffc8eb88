"""How many runs of a search are out of memory, if Optuna gets a violated constraint for them, or a failure.

    python -m benchmarks.study.out_of_memory

A study of 60 trials over rank, micro-batch, length and learning rate, whose memory follows a closed form with a
device of 24 GiB, and whose score grows with all of them, so that the sampler searches near the limit. Three seeds.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import optuna

from benchmarks.results import save
from sweep.study.entry import Entry
from sweep.study.trial_store import TrialStore

TRIALS = 60
CAPACITY = 24 * 2**30
SPACE = {
    "rank": optuna.distributions.IntDistribution(4, 256, log=True),
    "micro_batch": optuna.distributions.CategoricalDistribution([1, 2, 4, 8, 16, 32]),
    "length": optuna.distributions.CategoricalDistribution([256, 512, 1024, 2048]),
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
}


def memory_bytes(params: dict[str, Any]) -> float:
    """A LoRA of a model with 3B parameters in bf16: weights, trainable state, and activations per token."""
    tokens = params["micro_batch"] * params["length"]
    trainable = params["rank"] * 3.5e5 * 16
    return 6.4e9 + trainable + tokens * (28 * 3072 * 2 * 3 + 14 * 128_000)


def score(params: dict[str, Any]) -> float:
    tokens = params["micro_batch"] * params["length"]
    rate = math.exp(-((math.log10(params["learning_rate"]) + 3.3) ** 2))
    return 0.5 * rate + 0.1 * math.log2(params["rank"]) / 8 + 0.3 * math.log2(tokens) / 16


def study(seed: int, as_failure: bool) -> tuple[int, float]:
    """(runs out of memory, best feasible score)."""
    with tempfile.TemporaryDirectory() as folder:
        trials = TrialStore(
            storage=f"sqlite:///{Path(folder)}/optuna.db", name="oom", directions=["maximize", "minimize"],
            metric_names=None, worst=[0.0, math.inf], space=SPACE, sampler=optuna.samplers.TPESampler(seed=seed),
        )  # fmt: skip
        lost, best = 0, 0.0
        for _ in range(TRIALS):
            trial = trials.ask(SPACE, lambda key, params: True)
            need = memory_bytes(trial.params)
            oom = need > CAPACITY
            lost += oom
            if not oom:
                best = max(best, score(trial.params))
            if oom and as_failure:
                trials.fail(trial.number)
                continue
            values = (None if oom else score(trial.params), min(need, CAPACITY))
            outcome = "oom" if oom else "ok"
            trials.close_trial(
                trial.number, {None: Entry(outcome=outcome, values=values, violated={"out_of_memory": float(oom)})}
            )
        return lost, best


def main() -> None:
    figures: dict[str, Any] = {}
    for name, as_failure in (("constraint", False), ("failure", True)):
        found = [study(seed, as_failure) for seed in range(3)]
        figures[f"oom_of_60_reported_as_{name}"] = [lost for lost, _ in found]
        figures[f"best_score_reported_as_{name}"] = statistics.mean(best for _, best in found)
    save("out_of_memory", figures)


if __name__ == "__main__":
    main()
