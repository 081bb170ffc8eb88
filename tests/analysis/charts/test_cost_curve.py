"""Many settings on one chart: what competes with the threshold is shown, the rest is at the edge, each has its name."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import pipeline
from analysis.charts import cost_curve, cost_view, style
from analysis.charts.cost_curve import Axis
from analysis.formatting import percent
from analysis.loading.study import Study
from analysis.reporting import figures
from analysis.reporting.report import Report

MEMORY = Axis("memory", "max_memory_allocated", "peak memory [bytes]")
SVG = "{http://www.w3.org/2000/svg}"


def study(count: int) -> Study:
    """`count` settings near the best with growing memory, a tenth as many that fail by far, and a large one."""
    rng = np.random.default_rng(0)
    near = [(f"method{i}/base-7B-rank{i}", 0.5 + 0.02 * i / count + rng.normal(0, 0.002), (10 + 5 * i / count) * 2**30)
            for i in range(count)]  # fmt: skip
    far = [(f"broken{i}/base-7B-rank{i}", 0.01 * i, (8 + i) * 2**30) for i in range(max(1, count // 10))]
    rows = [*near, *far, ("full/base-7B-all", 0.5, 90 * 2**30)]
    runs = pd.DataFrame(rows, columns=["setting", "score", "max_memory_allocated"])
    runs = runs.assign(
        run_id=range(len(rows)), variant=runs["setting"].str.partition("/")[0], seed=0, outcome="ok", reason="",
        metric="accuracy", direction="maximize", conditions_hash="", conditions="{}", running=False, n_examples=1000,
    )  # fmt: skip
    return Study("s", None, {}, "", runs)


def report(count: int) -> Report:
    return pipeline.build(study(count), 0.99, None, "max_memory_allocated")


@pytest.fixture(scope="module")
def made() -> Report:
    return report(60)


def test_what_competes_sets_the_range(made: Report):
    marks = cost_curve.data(made.decision, made.runs, MEMORY)
    shown = cost_view.view(marks, made.decision.score_threshold, True, False, log=False)
    inside = marks.loc[shown.inside[shown.inside].index, "setting"]
    verdicts = made.settings.set_index("setting")["verdict"]
    near = inside[~inside.str.startswith(("broken", "full"))]
    assert (verdicts[near] != "misses it").mean() > 0.5
    assert {made.decision.selected, made.decision.best} <= set(inside)
    assert not inside.str.startswith(("broken", "full")).any()
    assert shown.cost[1] < 20 * 2**30
    assert shown.score[0] > 0.4
    few = report(8)
    marks = cost_curve.data(few.decision, few.runs, MEMORY)
    assert cost_view.view(marks, few.decision.score_threshold, True, False, log=False).inside.all()


def test_intervals_are_those_of_the_posterior(made: Report):
    """One seed and 1,000 answers: within the binomial's interval, since the scores of 60 settings lie together."""
    near = made.settings[made.settings["setting"].str.startswith("method")]
    width = (near["score_high"] - near["score_low"]).median()
    assert 0.01 < width < 2 * 1.96 * np.sqrt(0.25 / 1000)
    marks = cost_curve.data(made.decision, made.runs, MEMORY).dropna(subset=["score_low"]).set_index("setting")
    assert marks["score_low"].to_dict() == made.settings.set_index("setting")["score_low"][marks.index].to_dict()
    assert made.interval_words.startswith(" In brackets: the 95% interval of the true score")


def test_every_mark_has_its_name_and_at_most_a_dozen_are_written(made: Report, tmp_path: Path):
    drawn = figures.draw_all(made, tmp_path, [".svg", ".png"])
    assert drawn.names[0] == figures.MAIN
    tree = ET.parse(tmp_path / f"{figures.MAIN}.svg")
    titles = [title.text for circle in tree.iter(f"{SVG}circle") for title in circle.iter(f"{SVG}title")]
    assert {title.partition(": ")[0] for title in titles} == set(made.settings["setting"])
    best = made.settings.set_index("setting").loc[made.decision.best]
    assert any(title.startswith(f"{made.decision.best}: score {best.score:.4f}, ") for title in titles)
    texts = ["".join(text.itertext()) for text in tree.iter(f"{SVG}text")]
    short = set(made.short_names.names.values())
    assert 2 <= len([text for text in texts if text in short]) <= 12
    assert not any("base-7B-" in text for text in texts)
    key = " ".join(texts)
    for words in ("fill: chance to reach the threshold", "ticks at the edge: 7 settings outside the picture",
                  "Names without what all share: base-7B"):  # fmt: skip
        assert words in key
    chance = made.settings.set_index("setting").loc[made.decision.selected, "p_right_pick"]
    assert f"(chance: {percent(chance)})" in key


def test_a_circle_with_a_title_is_on_its_mark(tmp_path: Path):
    figure, axes = style.new_figure()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.plot([0.25], [0.75], "o", color="#123456", markersize=4)
    style.add_hover(axes, [(0.25, 0.75, "a & <b>")], 5.0)
    [path] = style.save(figure, tmp_path / "x", [".svg"])
    text = path.read_text()
    x, y = map(float, re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text).groups())
    drawn = re.search(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #123456', text)
    assert (x, y) == pytest.approx(tuple(map(float, drawn.groups())), abs=0.01)
    assert "<title>a &amp; &lt;b&gt;</title>" in text
    ET.parse(path)


def test_the_next_step_names_seeds_and_examples(made: Report):
    assert made.next_step.startswith("To be surer: the likeliest pick is right with a chance of")
    assert "2 more seeds for each setting (seed=0,1,2)" in made.next_step
    assert "4,000 validation examples instead of 1,000" in made.next_step


def test_a_thousand_settings_are_drawn(tmp_path: Path):
    many = report(1000)
    figures.draw_all(many, tmp_path, [".svg"])
    assert (tmp_path / f"{figures.MAIN}.svg").read_text().count("<title>") >= 1000
