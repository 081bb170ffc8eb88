"""The columns and the label of table.tex."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from store import Written, record

from analysis import decide, load_study
from analysis.reporting import writer
from sweep.core.errors import UserError


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory):
    written = Written(tmp_path_factory.mktemp("latex"))
    runs = [
        record(f"lora r={r}", seed, 0.5 + r / 100, 1e6 * r, **{"eval/rouge1": 0.25 + seed / 10})
        for r in (4, 8) for seed in (0, 1)
    ]  # fmt: skip
    params = {f"lora r={r}": {"variant.r": str(r)} for r in (4, 8)}
    written.study("ranks", runs, params=params)
    return decide(load_study("ranks", uri=written.uri))


def table(report, folder: Path) -> str:
    writer.write(report, folder, [".svg"])
    return (folder / "table.tex").read_text()


def test_chosen_columns_in_their_order_with_means_and_a_label(report, tmp_path: Path):
    latex = {"columns": ["setting", "eval/rouge1", "variant.r"], "label": "tab:ranks"}
    text = table(replace(report, latex=latex), tmp_path / "out")
    assert r"\label{tab:ranks}" in text
    assert r"\begin{tabular}{lrr}" in text
    row = next(line for line in text.splitlines() if "lora r=4" in line and " & " in line)
    assert row.split(" & ")[1:] == ["0.3", r"4 \\"]


def test_without_a_choice_the_table_is_the_report_s(report, tmp_path: Path):
    text = table(report, tmp_path / "out")
    assert r"\label" not in text
    assert "peak memory" in text.replace(r"\\", " ")


def test_an_unknown_column_is_refused_with_the_near_one(report, tmp_path: Path):
    with pytest.raises(UserError, match=r"no run has a number eval/rouge2; did you mean eval/rouge1\?"):
        table(replace(report, latex={"columns": ["eval/rouge2"]}), tmp_path / "out")
