"""From a store to the report and back: the files, the MLflow tags, and the messages about unusual studies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from store import CONDITIONS, Written, record

from analysis import pipeline
from analysis.loading.mlflow_store import StudyReader
from analysis.reporting import mlflow_publish, mlflow_view, writer
from sweep.core.errors import UserError
from sweep.core.record import Outcome

pytestmark = pytest.mark.slow
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    made = Written(tmp_path_factory.mktemp("store"))
    runs = [
        record(setting, seed, score + 0.005 * seed, memory, train_seconds=9.0, tokens_per_second=5e3,
               trainable_params=7.0, **{"memory/train_weights_bytes": memory / 2, "memory/train_gradients_bytes": 1e6})
        for setting, score, memory in (("fft", 0.9, 60e6), ("lora", 0.895, 40e6), ("tiny", 0.4, 30e6))
        for seed in (0, 1)
    ]  # fmt: skip
    runs.append(record(f"huge {SCRIPT}", 0, outcome=Outcome.OOM, reason=f"no room {SCRIPT}",
                       **{"memory/capacity_bytes": 80e6}))  # fmt: skip
    made.study("good", runs)
    made.study("going on", runs[:4], finished=False)
    made.study("hopeless", [record("fft", 0, outcome=Outcome.OOM, reason="no room")])
    made.study("mixed", [record("a", 0, 0.5, 1e6), record("b", 0, 0.5, 2e6, conditions={**CONDITIONS, "device": "B"})])
    return made


def options(written: Written, out: Path, **changes: object) -> dict:
    base = {
        "study": None, "source": None, "compare": None, "threshold": 0.99, "margin": None, "direction": None,
        "memory_metric": "max_memory_allocated", "allow_different": [], "cluster": None, "price": 2, "pdf": False,
        "out": str(out),
        "tracking": {"uri": written.uri, "experiment": written.experiment},
    }  # fmt: skip
    return {**base, **changes}


def test_a_study_s_report_and_what_mlflow_shows(written: Written, tmp_path: Path):
    summary = pipeline.answer(options(written, tmp_path / "out", study="good"))
    assert "Use lora: exact_match 0.8975, 99.4% of the best (fft, 0.9025)" in summary
    assert "Chance that lora is the smallest that reaches it: " in summary
    answer = json.loads((tmp_path / "out/recommendation.json").read_text())
    assert {s["setting"]: s["verdict"] for s in answer["settings"]}["tiny"] == "misses it"
    assert set(answer["files"]) == {file.name for file in (tmp_path / "out").iterdir()}
    assert {"memory_parts.svg", "training_loss.png", "table.tex", "report.md"} <= set(answer["files"])
    assert any("energy" in text for text in answer["charts_left_out"])
    page = (tmp_path / "out/report.html").read_text()
    assert SCRIPT not in page
    assert "train.activation_checkpointing=true" in page  # what to change after an OOM

    store = StudyReader(written.uri, written.experiment)
    study = store.study("good")
    parent = store.client.get_run(study.parent_id)
    assert parent.data.tags["mlflow.note.content"].splitlines()[0].startswith("**Use lora: exact_match 0.8975")
    assert parent.info.run_name == "good: use lora, 38.1 MiB"
    assert parent.data.tags["selected"] == "lora"
    assert 0 < float(parent.data.tags["selected.p_right_pick"]) <= 1
    kept = {Path(file.path).name for file in store.client.list_artifacts(study.parent_id, "report")}
    assert kept == set(answer["files"])
    runs = study.runs.set_index("setting")
    assert set(runs.loc["tiny", "verdict"]) == {"misses it"}
    assert set(runs.loc["lora", "selected"]) == {"yes"}
    assert runs["mlflow.runColor"].groupby(level=0).nunique().max() == 1
    assert runs["mlflow.runColor"].nunique() == 4
    tags = store.client.get_experiment(store.experiment_id).tags
    assert f"mlflow.sharedViewState.{mlflow_view.share_key('good')}" in tags


def test_the_saved_view_is_what_mlflow_s_page_inflates():
    import base64
    import zlib

    [(key, value)] = mlflow_view.tags("s", "p", "em", "max_memory_allocated", "3.17.2").items()
    state = json.loads(zlib.decompress(base64.b64decode(value.removeprefix("deflate;"))))
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'p'"
    assert state["compareRunCharts"][0]["xaxis"] == {"key": "max_memory_allocated", "type": "METRIC"}
    assert mlflow_view.share_key("s") in mlflow_view.link("http://h", "1", "s")
    assert key.endswith(mlflow_view.share_key("s"))
    assert mlflow_view.tags("s", "p", "em", "max_memory_allocated", "4.0.0") == {}


def test_a_study_still_running_is_answered_so_far(written: Written, tmp_path: Path):
    asked = options(written, tmp_path, study="going on")
    made = pipeline.of_study(StudyReader(written.uri, written.experiment).study("going on"), asked)
    summary = "The answer so far: the study has not ended."
    assert summary in pipeline.summary(made, tmp_path)
    page = writer.environment().get_template("report.html.j2")
    assert summary in page.render(report=made, picks=[], charts={}, left_out=[], main="", **writer.page_script())
    assert mlflow_publish.note(made).startswith(f"*{summary}*")


def test_no_study_lists_them(written: Written, tmp_path: Path):
    summary = pipeline.answer(options(written, tmp_path / "out"))
    lines = summary.splitlines()
    assert lines[0].split() == ["study", "state", "begun", "runs", "selected"]
    assert [line.split("  ")[0] for line in lines[1:5]] == ["mixed", "hopeless", "going on", "good"]
    assert "running" in lines[3]
    assert "6 ok" in lines[4]
    assert "1 oom" in lines[4]
    assert list(tmp_path.iterdir()) == []


def test_an_unusual_study_gets_a_message_of_one_sentence(written: Written, tmp_path: Path):
    def summary(**changes: object) -> str:
        with pytest.raises(UserError) as caught:
            pipeline.answer(options(written, tmp_path / "out", **changes))
        return str(caught.value)

    assert "fft: 1 oom (no room)" in summary(study="hopeless")
    assert "did you mean good?" in summary(study="goood")
    assert "device: B (b · seed 0); a CPU (a · seed 0)" in summary(study="mixed")
    assert "no such condition differs" in summary(study="mixed", allow_different=["devices"])
    assert list(tmp_path.iterdir()) == []


def test_two_studies_side_by_side(written: Written, tmp_path: Path):
    summary = pipeline.answer(options(written, tmp_path / "out", compare=["good", "going on"]))
    assert "Both select lora" in summary or "selects" in summary
    assert "The conditions are the same." in summary
    mixed = options(written, tmp_path / "mixed", compare=["good", "mixed"], allow_different=["device"])
    assert "  device: a CPU / B, a CPU" in pipeline.answer(mixed)
    with pytest.raises(UserError, match="no such condition differs"):
        pipeline.answer(options(written, tmp_path / "out", compare=["good", "mixed"], allow_different=["devices"]))
    page = (tmp_path / "out/comparison.html").read_text()
    assert SCRIPT not in page
    assert "The answer so far: the study has not ended." in page
    assert "The answer so far: the study has not ended." in summary
    assert "No setting is in both" not in summary
    table = pd.read_csv(tmp_path / "out/comparison.csv").set_index("setting")
    assert table.loc["fft", "score_change"] == "+0.0000" or table.loc["fft", "score_change"] == 0
    assert (tmp_path / "out/comparison.png").exists()


def test_two_studies_without_a_common_setting_are_said_to_have_none(tmp_path: Path):
    made = Written(tmp_path)
    for name, setting in (("one", "lora r=4"), ("two", "qlora r=4")):
        made.study(name, [record(setting, seed, 0.8, 1e6) for seed in (0, 1)])
    assert "No setting is in both studies" in pipeline.answer(options(made, tmp_path / "out", compare=["one", "two"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": [math.nan, 0.9, 0.5]}, "have no score"),
        ({"max_memory_allocated": [math.nan, 2e6, 3e6]}, "have no memory figure"),
        ({"setting": ["only"] * 3, "seed": [0, 1, 2]}, "There is nothing to compare it with"),
        ({"score": [math.nan, 0.9, math.nan]}, "Use b, the only setting with a score"),
        ({"setting": ["a", "a", "b"], "seed": [0, 0, 0]}, "repeated with the same setting and seed"),
    ],
)
def test_unusual_data_get_a_note(change: dict, words: str):
    runs = pd.DataFrame(
        {"run_id": list("xyz"), "setting": list("abc"), "variant": "v", "seed": 0, "outcome": "ok", "reason": "",
         "score": [0.8, 0.9, 0.5], "max_memory_allocated": [1e6, 2e6, 3e6], "running": False, "conditions_hash": "",
         "conditions": "{}", "metric": "em", "direction": "maximize"}
    )  # fmt: skip
    from analysis.loading.study import Study

    made = pipeline.build(Study("s", None, {}, "", runs.assign(**change)), 0.99, None, "max_memory_allocated")
    summary = [*made.notes, made.confidence, made.answer]
    assert any(words in text for text in summary), summary


def test_a_direction_that_is_not_known_is_asked_for():
    from analysis.loading.study import Study

    runs = pd.DataFrame(
        {"run_id": ["x"], "setting": ["a"], "variant": "v", "seed": 0, "outcome": "ok", "reason": "", "score": [0.8],
         "max_memory_allocated": [1e6], "running": False, "conditions_hash": "", "conditions": "{}", "metric": "em"}
    )  # fmt: skip
    study = Study("s", None, {}, "", runs)
    with pytest.raises(UserError, match="direction=maximize or direction=minimize"):
        pipeline.build(study, 0.99, None, "max_memory_allocated")
    assert pipeline.build(study, 0.99, None, "max_memory_allocated", direction="minimize").decision.selected == "a"


def test_gpu_and_cpu_memory_are_never_ranked_together():
    from analysis.loading.comparability import require_comparable

    runs = pd.DataFrame({"memory_source": ["cuda_allocator", "cpu_live_tensor_bytes"], "conditions_hash": ["a", "b"]})
    with pytest.raises(UserError, match="never ranked together"):
        require_comparable(runs, allow_different=["device"])
