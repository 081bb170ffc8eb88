"""The answer by chances: its sentences and its JSON against the posterior's draws."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from analysis import pipeline
from analysis.formatting import percent
from analysis.loading.study import Study
from analysis.reporting import chances
from analysis.reporting.report import Report
from benchmarks.decision import real_runs


def report(threshold: float = 0.99, margin: float | None = None, price: float = 2.0, seeds: int = 3) -> Report:
    """Of a part of the real runs, three seeds and 1,200 examples."""
    runs = real_runs.load()
    right = runs.right[:, :seeds, :1200]
    rows = [(name, seed, right[k, seed].mean(), runs.memory[k])
            for k, name in enumerate(runs.settings) for seed in range(seeds)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["setting", "seed", "score", "max_memory_allocated"])
    frame = frame.assign(
        run_id=frame.index.astype(str), variant=frame["setting"], outcome="ok", reason="", metric="em",
        direction="maximize", conditions_hash="", conditions="{}", running=False, n_examples=1200,
    )  # fmt: skip
    study = Study("s", None, {}, "", frame)
    return pipeline.build(study, threshold, margin, "max_memory_allocated", price=price)


@pytest.fixture(scope="module")
def made() -> Report:
    return report()


def test_the_answer_has_the_chances_of_the_pick_and_of_the_smaller_ones(made: Report):
    settings = made.settings.set_index("setting")
    pick = settings.loc[made.decision.selected]
    assert f"reach 99% of the best is {percent(pick.p_reaches_bar)}" in made.answer
    assert f"the smallest that reaches it: {percent(pick.p_right_pick)}" in made.confidence
    for name in settings.index[(settings["memory"] < pick.memory) & (settings["p_reaches_bar"] > 0.05)]:
        assert re.search(rf"{name}( \([^)]*\))? {percent(settings.loc[name, 'p_reaches_bar'])}", made.confidence)


def test_the_threshold_that_a_smaller_setting_reaches_has_95_percent_in_the_draws(made: Report):
    share, name = re.search(r"If ([\d.]+)% of the best is enough: (\w+)", made.confidence).groups()
    names, draws = made.noise.settings, made.decision.posterior.draws
    best = draws.max(axis=1)

    def chance(setting: str, of_best: float) -> float:
        return float(np.mean(draws[:, names.index(setting)] >= of_best * best))

    assert chance(name, float(share) / 100) >= 0.95
    smaller = [s for s in names if s != made.decision.selected]
    assert max(chance(s, float(share) / 100 + 0.005) for s in smaller) < 0.95


def test_json_has_the_chances_and_losses_of_each_setting(made: Report):
    answer = json.loads(json.dumps(made.as_json(), allow_nan=False))
    settings = {row["setting"]: row for row in answer["settings"]}
    pick = settings[answer["selected"]]
    assert answer["p_right_pick"] == pick["p_right_pick"]
    assert answer["next_step"] == made.next_step
    assert sum(row["p_right_pick"] for row in settings.values()) == pytest.approx(1)
    assert answer["least_expected_loss"] == min(settings, key=lambda name: settings[name]["expected_loss"])
    for row in settings.values():
        low, high = row["score_ci95"]
        assert 0 < low < high < 1
        assert 0 <= row["p_reaches_bar"] <= 1
        assert row["verdict"] in ("reaches it", "probably", "open", "probably not", "misses it")


def test_a_low_price_of_the_score_saves_memory():
    cheap, dear = (report(price=price).decision for price in (0.0, 50.0))
    memory = dear.settings.set_index("setting")["memory"]
    assert memory[cheap.least_loss] < memory[dear.least_loss]
    assert cheap.selected == dear.selected


def test_a_margin_is_said_as_a_distance():
    made = report(margin=0.01)
    assert "Its chance to be within 0.01 of the best is" in made.answer
    assert re.search(r"If 0\.\d+ below the best is enough: ", made.confidence)
    assert "for each 0.01 by which the threshold is missed" in chances.note(made.decision)
