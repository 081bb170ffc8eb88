"""Score against a swept number: the numbers of the chart, and that it is drawn for few and for many settings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.charts import learning_curve, score_by_key, style
from analysis.loading.study import Point

KEYS = ["variant.r", "variant.learning_rate"]


def tables(ranks: list[int], rates: list[float], seeds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Settings and runs with the score r / 100 + seed / 1000 - rate."""
    settings, runs = [], []
    for r in ranks:
        for rate in rates:
            name = f"lora r={r} learning_rate={rate:g}"
            values = [r / 100 + seed / 1000 - rate for seed in range(seeds)]
            row = {"setting": name, "variant": "lora", "variant.r": r, "variant.learning_rate": rate}
            settings.append({**row, "score": sum(values) / len(values)})
            runs += [{"setting": name, "seed": seed, "score": value} for seed, value in enumerate(values)]
    return pd.DataFrame(settings), pd.DataFrame(runs)


def test_each_line_has_one_rate_and_the_means_and_limits_of_its_runs():
    settings, runs = tables([4, 8, 16], [0.001, 0.01])
    assert score_by_key.numeric_keys(settings, KEYS) == ["variant.r"]  # two rates are too few for an axis
    found = score_by_key.data(settings, runs, "variant.r", KEYS)
    assert set(found["line"]) == {"learning_rate 0.001", "learning_rate 0.01"}
    means = found[(found["kind"] == "mean") & (found["line"] == "learning_rate 0.01")]
    assert means["value"].tolist() == [4, 8, 16]
    assert means["score"].tolist() == pytest.approx([r / 100 + 0.0005 - 0.01 for r in (4, 8, 16)])
    assert means["low"].tolist() == pytest.approx([r / 100 - 0.01 for r in (4, 8, 16)])
    assert means["high"].tolist() == pytest.approx([r / 100 + 0.001 - 0.01 for r in (4, 8, 16)])
    assert (found["kind"] == "run").sum() == len(runs)


def test_a_key_that_is_not_in_the_names_of_settings_is_not_swept():
    settings, _ = tables([4, 8, 16], [0.001])
    settings["setting"] = [f"lora_r{r}" for r in settings["variant.r"]]
    assert score_by_key.numeric_keys(settings, KEYS) == []
    settings["setting"] = [f"fft alpha_r={r}" for r in settings["variant.r"]]
    assert score_by_key.numeric_keys(settings, KEYS) == []


def test_settings_of_many_lines_are_drawn_in_order_of_the_number(tmp_path: Path):
    settings, runs = tables([1, 2, 4], [0.001 * i for i in range(1, 15)], seeds=1)
    found = score_by_key.data(settings, runs, "variant.r", KEYS)
    lines = found["line"].unique()
    assert len(lines) == 10
    assert {"learning_rate 0.001", "learning_rate 0.014"} <= set(lines)
    figure = score_by_key.draw(found, key="r", score_label="score", title="Score by r", threshold=0.01)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[:2]] == [1, 1]
    style.save(figure, tmp_path / "a", [".svg"])


def curve(key: str, runs: pd.DataFrame, histories: dict[str, list[Point]]) -> pd.DataFrame:
    settings = pd.DataFrame({"setting": ["a"], "variant": ["v"], "score": [0.5], "selected": [True], "best": [True]})
    return learning_curve.data(settings, runs, lambda run_id, _: histories.get(run_id, []), key)


def run(run_id: str, outcome: str = "ok", score: float = 0.5) -> dict:
    return {"setting": "a", "run_id": run_id, "outcome": outcome, "score": score, "train/steps": 30.0}


def test_a_learning_curve_ends_at_the_final_evaluation_and_leaves_out_pruned_seeds():
    runs = pd.DataFrame([run("x", score=0.8), run("y", score=0.6), run("z", "pruned", 0.1)])
    histories = {name: [Point(0, start), Point(10, start + 0.2)] for name, start in (("x", 0.2), ("y", 0.0), ("z", 0))}
    found = curve("eval/score", runs, histories)
    assert found["step"].tolist() == [0, 10, 30]
    assert found["value"].tolist() == pytest.approx([0.1, 0.3, 0.7])
    assert found["low"].tolist() == pytest.approx([0.0, 0.2, 0.6])
    assert found["high"].tolist() == pytest.approx([0.2, 0.4, 0.8])
    assert found["raw"].isna().all()


def test_a_setting_of_which_no_run_ended_well_is_drawn_as_far_as_it_came():
    found = curve("eval/score", pd.DataFrame([run("z", "pruned")]), {"z": [Point(10, 0.1), Point(20, 0.2)]})
    assert found["step"].tolist() == [10, 20]


def test_losses_are_smoothed_and_the_raw_ones_are_kept():
    values = [float(i % 2) for i in range(1, 121)]
    histories = {"x": [Point(i, value) for i, value in enumerate(values, 1)]}
    found = curve("train/loss", pd.DataFrame([run("x")]), histories)
    assert found["raw"].tolist() == values
    inner = found.iloc[2:-2]
    assert inner["value"].to_numpy() == pytest.approx(
        [sum(values[i - 2 : i + 2]) / 4 for i in range(2, 118)], abs=1e-12
    )  # 120 / 30: a window of four steps


def test_both_charts_are_drawn_on_axes_of_the_caller():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    settings, runs = tables([4, 8, 16], [0.001, 0.01])
    points = score_by_key.data(settings, runs, "variant.r", KEYS)
    assert score_by_key.draw(points, key="r", score_label="score", title="", axes=left) is figure
    steps = curve("eval/score", pd.DataFrame([run("x")]), {"x": [Point(10, 0.1), Point(20, 0.2)]})
    learning_curve.draw(steps, title="", value_label="score", looks=style.looks(["v"]), axes=right)
    assert (left.get_xlabel(), right.get_xlabel()) == ("r", "optimizer step")
    assert len(left.lines) == 4
