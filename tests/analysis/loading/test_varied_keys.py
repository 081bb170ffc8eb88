"""Keys of the config that differ between runs are columns of the tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from store import Written, record

from analysis import decide, load_study
from analysis.loading.varied_keys import varied, with_keys
from analysis.reporting import writer

PARAMS = {
    f"lora r={r}": {"variant.r": str(r), "variant.name": "lora", "variant.bias": "none", "variant.mode": mode}
    for r, mode in ((4, "a"), (8, "b"))
}


def test_only_what_differs_is_a_column_and_numbers_are_numbers():
    rows = [
        {"variant.r": "4", "train.max_steps": "9", "seed": "0", "variant.mode": "a"},
        {"variant.r": "8", "train.max_steps": "9", "seed": "1", "variant.mode": "b"},
        {"train.max_steps": "9", "seed": "0"},
    ]
    found = varied(rows)
    assert list(found.columns) == ["variant.mode", "variant.r"]
    assert found["variant.r"].tolist()[:2] == [4, 8]
    assert found["variant.r"].isna().tolist() == [False, False, True]


def test_a_key_that_differs_within_a_setting_is_not_of_the_setting():
    runs = pd.DataFrame({"setting": ["a", "a", "b"], "variant.r": [1, 1, 2], "train.x": [1, 2, 3]})
    assert list(with_keys(pd.DataFrame({"setting": ["b", "a"]}), runs)["variant.r"]) == [2, 1]
    assert "train.x" not in with_keys(pd.DataFrame({"setting": ["b", "a"]}), runs)


def test_the_tables_of_a_study_and_of_its_report_have_them(tmp_path: Path):
    written = Written(tmp_path)
    runs = [record(f"lora r={r}", seed, 0.5 + r / 100, 1e6 * r) for r in (4, 8) for seed in (0, 1)]
    written.study("ranks", runs, params=PARAMS)
    study = load_study("ranks", uri=written.uri)
    assert study.keys == ["variant.mode", "variant.r"]
    assert study.runs.groupby("setting")["variant.r"].first().to_dict() == {"lora r=4": 4, "lora r=8": 8}
    report = decide(study)
    assert dict(zip(report.settings["setting"], report.settings["variant.r"], strict=True)) == {
        "lora r=4": 4, "lora r=8": 8,
    }  # fmt: skip
    writer.write(report, tmp_path / "out", [".svg"])
    for name in ("runs.csv", "settings.csv"):
        assert {"variant.r", "variant.mode"} <= set(pd.read_csv(tmp_path / "out" / name).columns)
