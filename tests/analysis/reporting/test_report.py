"""The report: what its charts show, that it stands alone, and that text from outside stays text."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import pipeline
from analysis.charts import cost_curve, memory_parts
from analysis.charts.cost_curve import Axis
from analysis.loading import comparability
from analysis.loading.study import Study
from analysis.reporting import failures, report, writer
from sweep.core.errors import UserError

SCRIPT = "<script>alert(1)</script>|`x`"


def study(**changes: object) -> Study:
    conditions = json.dumps({"train.max_steps": "3"})
    rows = [
        {"setting": s, "variant": s, "seed": seed, "outcome": "ok", "reason": "", "score": score + 0.01 * seed,
         "max_memory_allocated": memory, "train_seconds": 10.0, "tokens_per_second": 5.0, "trainable_params": 7.0}
        for s, score, memory in (("fft", 0.9, 60e6), ("lora", 0.895, 40e6), ("qlora", 0.7, 30e6)) for seed in (0, 1)
    ]  # fmt: skip
    rows.append({"setting": SCRIPT, "variant": "huge", "seed": 0, "outcome": "oom", "reason": SCRIPT})
    runs = pd.DataFrame(rows).assign(
        metric="exact_match", direction="maximize", conditions_hash="aaa", running=False, memory_source="cuda_allocator"
    )
    runs["conditions"] = conditions
    runs["run_id"] = [f"r{i}" for i in range(len(runs))]
    return Study("a study", "p", {"train.max_steps": "3"}, "python -m sweep -m", runs.assign(**changes))


@pytest.fixture(scope="module")
def made() -> report.Report:
    return pipeline.build(study(), 0.99, None, "max_memory_allocated")


@pytest.fixture(scope="module")
def out(made: report.Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder."""
    folder = tmp_path_factory.mktemp("report") / "out"
    writer.write(made, folder)
    return folder


def test_the_answer_names_selected_setting_score_and_saving(made: report.Report):
    assert made.decision.selected == "lora"
    assert "Use lora: exact_match 0.9000, 99.4% of the best (fft, 0.9050)" in made.answer
    assert "(33% less)" in made.answer


def test_paged_optimizer_state_is_in_the_table_and_on_the_axis_where_there_is_any():
    """QLoRA's figure is the sum that decides, and the report names both of its parts."""
    runs = study().runs
    paged = runs["setting"].map({"qlora": 20e6}).fillna(0.0)
    runs = runs.assign(peak_memory_bytes=runs["max_memory_allocated"] + paged, **{"memory/train_paged_bytes": paged})
    made = pipeline.build(study()._replace(runs=runs), 0.7, None, "peak_memory_bytes")
    assert made.decision.selected == "lora"  # 40 MB, and qlora 30 + 20 MB
    [row] = [row for row in made.table() if row["setting"] == "qlora"]
    assert (row["memory"], row["paged"]) == ("47.7 MiB", "19.1 MiB")
    assert made.columns["paged"] == "paged state"
    assert made.memory_words == "peak memory allocated on the GPU while training, and paged optimizer state"
    without = pipeline.build(study(), 0.99, None, "max_memory_allocated")
    assert "paged" not in without.columns


def test_the_chart_s_numbers(made: report.Report):
    marks = cost_curve.data(made.decision, made.runs, Axis("memory", "max_memory_allocated", "memory [bytes]"))
    settings = marks[marks["kind"] == "setting"].set_index("setting")
    assert settings["front"].to_dict() == {"fft": True, "lora": True, "qlora": True}
    assert settings["selected"].to_dict() == {"fft": False, "lora": True, "qlora": False}
    assert settings["cost"].to_dict() == {"fft": 60e6, "lora": 40e6, "qlora": 30e6}
    assert len(marks[marks["kind"] == "run"]) == 6


@pytest.mark.parametrize("order", [1, -1])
def test_the_runner_up_follows_the_rule_of_ties(order: int):
    """Of equal scores the smaller memory, of equal memory the better score, then fewer parameters, whatever the order
    of the rows."""
    rows = [("pick", 0.90, 50e9, 9.0), ("dominated", 0.80, 45e9, 1.0), ("small", 0.80, 20e9, 9.0),
            ("up", 0.899, 60e9, 5.0), ("up_worse", 0.898, 60e9, 1.0), ("up_more", 0.899, 60e9, 6.0)]  # fmt: skip
    runs = pd.DataFrame(rows[::order], columns=["setting", "score", "max_memory_allocated", "trainable_params"])
    runs = runs.assign(run_id=range(6), variant="v", seed=0, outcome="ok", reason="", metric="em", direction="maximize",
                       conditions_hash="", conditions="{}", running=False)  # fmt: skip
    made = pipeline.build(Study("s", None, {}, "", runs), 0.99, None, "max_memory_allocated")
    assert made.decision.selected == "pick"
    up, down = made.narrative.runner_up()
    assert up.startswith("The runner-up, up, reaches the threshold")
    assert down.startswith("Of those that need less memory, small scores best")


def test_a_setting_that_ran_out_of_memory_is_drawn_at_the_capacity_it_exceeded():
    runs = study().runs
    runs.loc[runs["outcome"] == "oom", "memory/capacity_bytes"] = 80e6
    pruned = runs.iloc[[0]].assign(setting="stopped", outcome="pruned", score=0.3)
    made = pipeline.build(study()._replace(runs=pd.concat([runs, pruned])), 0.99, None, "max_memory_allocated")
    marks = cost_curve.data(made.decision, made.runs, Axis("memory", "max_memory_allocated", "memory [bytes]"))
    assert marks.loc[marks["kind"] == "oom", ["setting", "cost"]].values.tolist() == [[SCRIPT, 80e6]]
    assert marks.loc[marks["kind"] == "pruned", ["setting", "score"]].values.tolist() == [["stopped", 0.3]]
    time = cost_curve.data(made.decision, made.runs, Axis("train_seconds", "train_seconds", "time [s]"))
    assert "oom" not in set(time["kind"])


def test_memory_parts_are_of_the_runs_that_ended_well_or_of_the_moment_of_failure():
    runs = study().runs
    ok = runs["setting"] == "fft"
    runs.loc[ok, ["memory/train_frozen_weights_bytes", "memory/train_trainable_weights_bytes"]] = [30e6, 10e6]
    runs.loc[ok, "memory/train_max_allocated_bytes"] = 60e6  # no part
    runs.loc[runs["outcome"] == "oom", "memory/oom_live_activations_and_temporaries_bytes"] = 70e6
    parts = memory_parts.data(pipeline.build(study(), 0.99, None, "max_memory_allocated").settings, runs)
    rows = parts.set_index("setting")
    assert rows.loc["fft", "weights"] == 40e6
    assert rows.loc[f"{SCRIPT} (out of memory)", "activations"] == 70e6
    assert len(rows) == 2


class Page(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data")]


def test_the_page_stands_alone_and_escapes(made: report.Report, out: Path):
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("svg") == 4
    assert page.tags.count("script") == 1  # the page's own, which its policy names by digest
    assert writer.page_script()["script_hash"] in text
    assert [link for link in page.links if not link.startswith("#")] == []
    assert "&lt;script&gt;" in text
    assert made.answer in text


def test_the_markdown_keeps_its_table(made: report.Report, out: Path):
    lines = (out / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    widths = {line.replace("\\|", "").count("|") for line in rows[:5]}
    assert widths == {10}
    assert made.answer in lines[2]


def test_text_from_outside_is_neither_latex_nor_markdown():
    """`\\\\ [` and `\\\\ *` are options of LaTeX's line break; GitHub makes formulas of $…$ and links of URLs."""
    assert writer.latex("[a]*{b}_$%") == r"{[}a]{*}\{b\}\_\$\%"
    assert writer.markdown_cell("$x$ http://a.b") == r"\$x\$ http\://a.b"
    assert writer.markdown_cell("_x_ lora_r16") == r"\_x\_ lora\_r16"
    assert writer.markdown_cell("lora_r16") == "lora_r16"


def test_settings_without_a_result_are_listed_with_their_outcome(out: Path):
    settings = {s["setting"]: s for s in json.loads((out / "recommendation.json").read_text())["settings"]}
    assert settings[SCRIPT]["outcomes"] == {"oom": 1}
    assert settings[SCRIPT]["score"] is None
    assert not settings[SCRIPT]["meets"]
    assert (pd.read_csv(out / "settings.csv").set_index("setting").loc[SCRIPT, "outcomes"]) == "1 oom"


def test_the_same_data_give_the_same_files(made: report.Report, out: Path, tmp_path: Path):
    writer.write(made, tmp_path / "again")
    for file in out.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_report_that_fails_leaves_the_folder_as_it_was(tmp_path: Path):
    def broken(folder: Path) -> None:
        (folder / "half.svg").write_text("a chart")
        raise UserError("no")

    with pytest.raises(UserError):
        writer.replace_all(tmp_path / "out", "s", broken)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_other_conditions_are_refused_by_key_and_name():
    conditions = [
        json.dumps({"train.max_steps": steps, "device": "x"}) for steps in ("3", "3", "3", "3", "3", "3", "9")
    ]
    mixed = study(conditions=conditions, conditions_hash=list("aaaaaab"))
    with pytest.raises(UserError, match=r"train.max_steps: 3 .*fft · seed 0.*; 9 ") as caught:
        comparability.require_comparable(mixed.runs)
    assert "device" not in str(caught.value)


def test_a_setting_that_does_not_always_end_well_is_reported(made: report.Report):
    runs = study().runs
    runs.loc[(runs["setting"] == "lora") & (runs["seed"] == 1), ["outcome", "score"]] = ["diverged", math.nan]
    shaky = pipeline.build(study()._replace(runs=runs), 0.98, None, "max_memory_allocated")
    assert shaky.decision.selected == "lora"
    assert "Warning: not all replicates of lora are ok (1 diverged)" in shaky.confidence
    assert "Warning" not in made.confidence


def test_where_lower_is_better_the_share_is_of_the_best():
    runs = study(direction="minimize").runs
    runs = runs.assign(score=[1.0, 1.0, 1.005, 1.005, 2, 2, math.nan])
    made = pipeline.build(study()._replace(runs=runs), 0.99, None, "max_memory_allocated")
    assert "lora: exact_match 1.0050, 99.5% of the best (fft, 1.0000)" in made.answer


def test_one_seed_is_reported_to_give_no_noise():
    single = study().runs.query("seed == 0")
    made = pipeline.build(study()._replace(runs=single), 0.99, None, "max_memory_allocated")
    assert "one seed" in made.confidence
    assert "assumed, not measured" in made.confidence


def test_an_unknown_memory_metric_lists_those_measured():
    with pytest.raises(UserError, match="max_memory_allocated"):
        pipeline.build(study(), 0.99, None, "max_memory")


def test_the_warnings_of_runs_are_in_the_notes():
    runs = study().runs
    runs["warnings"] = None
    first = runs.index[runs["setting"] == runs["setting"].iloc[0]]
    runs.loc[first, "warnings"] = "the loss did not decrease: 3 in the first quarter of the steps, 3 in the last"
    [note] = failures.warnings_of(runs)
    assert note.startswith(f"{runs['setting'].iloc[0]} (seed {runs['seed'].iloc[0]}) the loss did not decrease")
    assert note.endswith(f"So in {len(first)} of its runs.")
    assert failures.warnings_of(study().runs) == []


def test_advice_is_the_runs_own_where_they_have_suggestions():
    runs = study().runs
    found = failures.failures(runs)
    general = failures.advice(found, runs)["oom"]
    assert "train.activation_checkpointing=true; a smaller train.micro_batch_size" in general
    runs.loc[runs["outcome"] == "oom", "suggestions"] = "1. train.max_length=50: shorter\n2. variant=qlora_r8: 4 bits"
    own = failures.advice(found, runs)["oom"]
    assert f"{SCRIPT}: 1. train.max_length=50: shorter; 2. variant=qlora_r8: 4 bits." in own
    assert "activation_checkpointing" not in own
    assert all(text.endswith("make another study.") for text in (general, own))
