"""What a bracket of learning rates found, and what it took, against sums done by hand."""

from __future__ import annotations

import math

import pandas as pd

from analysis.decision import learning_rates


def runs() -> pd.DataFrame:
    columns = ["variant", "learning_rate_multiplier", "seed", "outcome", "score", "train_seconds"]
    table = [
        ("lora", "0.3", 0, "ok", 0.5, 10.0), ("lora", "0.3", 1, "ok", 0.7, 10.0), ("lora", "1.0", 0, "ok", 0.8, 11.0),
        ("lora", "3.0", 0, "diverged", None, 2.0),
        ("fft", "0.3", 0, "ok", 0.9, 20.0), ("fft", "1.0", 0, "ok", 0.2, 21.0),
        ("ia3", "1.0", 0, "ok", 0.1, 5.0),
        ("dora", "1.0", 0, "failed", None, None), ("dora", "3.0", 0, "oom", None, 1.0),
    ]  # fmt: skip
    return pd.DataFrame(table, columns=columns)


def test_the_best_rate_by_its_mean_and_the_price_of_all():
    found = learning_rates.data(runs(), higher_is_better=True).set_index("variant")
    assert list(found.index) == ["lora", "fft", "dora"]  # ia3 had one rate
    assert found["best_factor"][["lora", "fft"]].tolist() == [1.0, 0.3]
    assert found.loc["lora", ["score", "n_runs", "train_seconds"]].tolist() == [0.8, 4, 33.0]
    assert math.isnan(found.loc["dora", "train_seconds"])  # one run's figure is missing: so is the sum
    assert math.isnan(found.loc["lora", "energy_joules"])
    assert learning_rates.data(runs(), higher_is_better=False)["best_factor"].tolist()[:2] == [0.3, 1.0]


def test_the_sentences_name_the_best_rate_and_the_cost():
    lora, fft, dora = learning_rates.sentences(learning_rates.data(runs(), higher_is_better=True))
    assert "×0.3, ×1, ×3 of its own, ×1 scored best (0.8000); its 4 runs took 33.0 s" in lora
    assert "the best rate may lie outside" in fft
    assert "dora has no ok run at any" in dora


def test_without_brackets_nothing_is_said():
    assert (
        learning_rates.sentences(
            learning_rates.data(runs().drop(columns="learning_rate_multiplier"), higher_is_better=True)
        )
        == []
    )
    assert learning_rates.data(runs().query("variant == 'ia3'"), higher_is_better=True).empty
