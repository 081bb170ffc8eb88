"""Names on charts keep apart, fronts have an area, and one variant looks the same everywhere."""

from __future__ import annotations

import itertools
import math
import socket

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import formatting, ui
from analysis.charts import labels, style
from analysis.decision.pareto import hypervolume
from sweep.core.errors import UserError


def test_names_cover_neither_each_other_nor_marks():
    figure, axes = style.new_figure()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    points = [(1, 1), (1.4, 1.2), (5, 5), (5.3, 5.1), (5.1, 4.8), (9, 9), (9.2, 8.7), (2, 8)]
    labels.place(axes, [labels.Label(x, y, f"setting_{i}", "#000000", 4.5) for i, (x, y) in enumerate(points)])
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    pixels = axes.transData.transform(points)
    assert not any(box.contains(x, y) for box in boxes for x, y in pixels)


def test_a_name_that_has_no_room_and_need_not_be_there_is_left_out():
    _, axes = style.new_figure()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    crowd = [(5 + 0.1 * i, 5 + 0.1 * j, 6.0) for i in range(-12, 13) for j in range(-12, 13)]
    labels.place(axes, [labels.Label(5, 5, "lost", "#000000", 4.5, needed=False)], marks=crowd)
    assert [text.get_text() for text in axes.texts] == []


def test_49_variants_look_different():
    looks = style.looks([f"v{i}" for i in range(49)])
    assert len(set(looks.values())) == 49


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=10))
def test_the_hypervolume_is_the_share_of_the_box_that_is_dominated(points: list[tuple[int, int]]):
    frame = pd.DataFrame(points, columns=["cost", "score"], dtype=float)
    found = hypervolume(frame["cost"], frame["score"], True)
    left, right = frame["cost"].min(), frame["cost"].max()
    low, high = frame["score"].min(), frame["score"].max()
    if left == right or low == high:
        assert math.isnan(found)
        return
    xs, ys = np.arange(left, right) + 0.5, np.arange(low, high) + 0.5  # the middles of unit cells
    cells = [(x, y) for x in xs for y in ys]
    dominated = sum(any(cost <= x and score >= y for cost, score in points) for x, y in cells)
    assert found == pytest.approx(dominated / len(cells))


def test_changes_for_people():
    assert formatting.change(75.0, 100.0) == "25% less"
    assert formatting.change(103.04, 100.0) == "3.0% more"
    assert formatting.change(100.01, 100.0) == "the same"
    assert formatting.change(1.0, math.nan) == formatting.MISSING


def test_make_ui_names_the_process_on_the_port(tmp_path):
    with pytest.raises(UserError, match="Run a study first"):
        ui.serve(tmp_path / "mlflow.db", "127.0.0.1", 5000, "paretune")
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"PORT={port + 1}"):
            ui.serve(tmp_path / "mlflow.db", "127.0.0.1", port, "paretune")
