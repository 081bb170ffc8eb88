"""A study from the command line to its answer, on an untrained checkpoint."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import optuna
import pandas as pd
import pytest
from conftest import heed_interrupts
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

SECRETS = {"HF_TOKEN": "hf_plantedPLANTEDplanted", "MY_SERVICE_PASSWORD": "planted-in-environment"}
IN_OVERRIDE = "planted-in-override"
SMALLEST_FIRST = ("lora_r8", "qlora_r16", "fft")  # by predicted memory, at this size
STUDY = ["-m", "study.name=toy", "variant=fft,lora_r8,qlora_r16", "seed=0,1"]


class Done(NamedTuple):
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, module: str, *arguments: str) -> Done:
    """`python -m MODULE ARGUMENTS` in that folder, but in this process, whose imports and fork server exist already."""
    out, err = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"{module}.__main__").main
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def program(folder: Path, *arguments: str) -> Done:
    """The same in a process of its own, with secrets in its environment."""
    command = [sys.executable, "-m", "sweep", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **SECRETS}, capture_output=True, text=True, timeout=240, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def rows(folder: Path, kind: str = "run") -> list:
    store = client(folder)
    experiment = store.get_experiment_by_name("paretune")
    found = store.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")
    return sorted(found, key=lambda row: (row.info.start_time, row.info.run_id))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toy: list[str]) -> Path:
    """A folder in which the toy study has run once."""
    folder = tmp_path_factory.mktemp("study")
    done = run(folder, "sweep", *STUDY, *toy, "train.weight_decay=0.01", "study.predict_memory=true")
    assert done.returncode == 0, done.stderr
    return folder


def test_every_run_has_a_complete_row_under_one_parent(folder: Path):
    [parent] = rows(folder, "study")
    found = rows(folder)
    assert [row.info.run_name for row in found] == [
        f"{variant} · seed {seed}" for seed in (0, 1) for variant in SMALLEST_FIRST
    ]
    for row in found:
        tags, metrics = row.data.tags, row.data.metrics
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["outcome"] == "ok"
        assert row.info.status == "FINISHED"
        assert tags["memory_source"] == "cpu_live_tensor_bytes"
        assert {
            "study",
            "variant",
            "setting",
            "seed",
            "conditions_hash",
            "commit",
            "version.torch",
            "device",
        } <= tags.keys()
        wanted = {"trainable_params", "total_params", "peak_memory_bytes", "max_memory_allocated",
                  "tokens_per_second", "train_seconds",
                  "score", "eval/exact_match", "eval/token_accuracy", "memory/load_max_allocated_bytes",
                  "memory/eval_max_allocated_bytes", "train/loss"}  # fmt: skip
        assert wanted <= metrics.keys()
        assert metrics["score"] == metrics["eval/exact_match"]
        assert 20 <= len(row.data.params) <= 35  # QLoRA has the most
        kept = {file.path for file in client(folder).list_artifacts(row.info.run_id)}
        assert {"config.yaml", "validation_examples.parquet"} <= kept
    assert len({row.data.tags["conditions_hash"] for row in found}) == 1
    assert len(client(folder).get_metric_history(found[0].info.run_id, "train/loss")) == 6
    by_variant = {row.data.tags["variant"]: row.data.metrics for row in found}
    assert by_variant["fft"]["trainable_params"] == by_variant["fft"]["total_params"]
    assert by_variant["lora_r8"]["max_memory_allocated"] < by_variant["fft"]["max_memory_allocated"]


def test_per_example_results_average_to_the_score(folder: Path):
    row = rows(folder)[0]
    path = client(folder).download_artifacts(row.info.run_id, "validation_examples.parquet")
    examples = pd.read_parquet(path)
    assert len(examples) == 20
    assert examples["token_accuracy"].mean() == pytest.approx(row.data.metrics["eval/token_accuracy"])


def test_optuna_has_one_trial_per_setting(folder: Path):
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert [trial.params["variant"] for trial in study.trials] == list(SMALLEST_FIRST)
    found = rows(folder)
    for trial in study.trials:
        same = [row.data.metrics for row in found if row.data.tags["variant"] == trial.params["variant"]]
        means = [sum(metrics[key] for metrics in same) / 2 for key in ("score", "max_memory_allocated")]
        assert trial.values == pytest.approx(means)


def test_the_same_command_runs_only_the_missing_runs(folder: Path, toy: list[str]):
    again = run(folder, "sweep", *STUDY, *toy, "train.weight_decay=0.01")
    assert again.returncode == 0, again.stderr
    assert "All 6 runs of study toy are done already" in again.stdout
    assert len(rows(folder)) == 6
    client(folder).delete_run(rows(folder)[0].info.run_id)  # as a person does in the UI, to repeat the run
    third = run(folder, "sweep", *STUDY, *toy, "train.weight_decay=0.01")
    assert third.returncode == 0, third.stderr
    assert "launching 1" in third.stdout
    assert len(rows(folder)) == 6
    folders = sorted(path.name for path in (folder / "outputs/studies/toy").iterdir() if path.is_dir())
    assert folders == ["0", "1", "2", "3", "4", "5", "6"]


def test_other_conditions_are_refused_by_name(folder: Path, toy: list[str]):
    refused = run(folder, "sweep", *STUDY, *toy, "train.weight_decay=0.02")
    assert refused.returncode == 1
    assert "train.weight_decay: 0.01 → 0.02" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(rows(folder)) == 6


def test_a_study_that_learnt_nothing_has_a_report_without_a_pick(folder: Path):
    """Six steps of an untrained checkpoint: every setting is at chance level."""
    done = run(folder, "analysis", "study=toy", "margin=0.5")
    assert done.returncode == 0, done.stderr
    out = folder / "reports/toy"
    names = {path.name for path in out.iterdir()}
    assert {
        "recommendation.json", "report.md", "report.html", "runs.csv", "settings.csv", "score_against_memory.png",
        "score_against_memory.svg", "score_against_time.png", "score_against_time.svg",
    } <= names  # fmt: skip
    answer = json.loads((out / "recommendation.json").read_text())
    runs = pd.read_csv(out / "runs.csv")
    assert len(runs) == 6
    means = runs[runs["outcome"] == "ok"].groupby("setting")[["score", "max_memory_allocated"]].mean()
    assert answer["selected"] is None
    assert answer["answer"].startswith("Nothing was learnt")
    assert {setting["setting"]: setting["meets"] for setting in answer["settings"]} == dict.fromkeys(means.index, True)
    assert answer["answer"] in done.stdout
    parent = rows(folder, "study")[0]
    assert "Nothing was learnt" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["selected"] == ""
    kept = {file.path for file in client(folder).list_artifacts(parent.info.run_id, "report")}
    assert "report/report.html" in kept


def test_the_analysis_of_a_study_with_scores_of_zero_says_what_to_do(folder: Path):
    """99% of a best score of 0 has no meaning."""
    best = max(row.data.metrics["score"] for row in rows(folder))
    done = run(folder, "analysis", "study=toy", "out=elsewhere")
    assert (done.returncode == 0) == (best > 0)
    if best == 0:
        assert "margin=" in done.stderr
        assert not (folder / "elsewhere").exists()


@pytest.mark.long
def test_no_secret_is_written_anywhere(tmp_path: Path, toy: list[str]):
    planted = [f"+hydra.job.env_set.SOME_TOKEN={IN_OVERRIDE}", "variant=fft", *toy, "train.max_steps=2"]
    artifacts = f'tracking.artifacts="{tmp_path}/mlartifacts?password={IN_OVERRIDE}"'
    swept = program(tmp_path, "-m", "study.name=secret", *planted)
    assert swept.returncode == 0, swept.stderr
    assert program(tmp_path, artifacts, *planted).returncode == 0
    unreachable = run(tmp_path, "sweep", *toy, f"tracking.uri=http://someone:{IN_OVERRIDE}@127.0.0.1:9/x")
    assert unreachable.returncode == 2
    assert "cannot be reached" in unreachable.stderr
    assert IN_OVERRIDE not in unreachable.stdout + unreachable.stderr
    secrets = [*SECRETS.values(), IN_OVERRIDE]
    searched = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(searched) > 25
    found = [(str(path), s) for path in searched for s in secrets if s.encode() in path.read_bytes()]
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["auto", "grid"])
def test_no_trial_is_no_run(tmp_path: Path, toy: list[str], sampler: str):
    study = ["-m", *toy, "variant=fft,lora_r8", f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=0"]
    done = run(tmp_path, "sweep", *study, "study.name=none")
    assert done.returncode == 0, done.stderr
    assert "Study none has no run, and this command launches none" in done.stdout
    assert rows(tmp_path) == []


def test_two_settings_under_one_name_are_refused(tmp_path: Path, toy: list[str]):
    (tmp_path / "mine/variant").mkdir(parents=True)
    (tmp_path / "mine/variant/lora_r2.yaml").write_text("defaults: [lora_r8]\nr: 2\n")
    done = run(tmp_path, "sweep", "-m", "--config-dir", "mine", *toy, "variant=lora_r8,lora_r2")
    assert done.returncode == 2
    assert "stands for two settings (variant=lora_r8 and variant=lora_r2)" in done.stderr


def test_divergence_is_an_outcome(tmp_path: Path, toy: list[str]):
    done = run(tmp_path, "sweep", *toy, "variant.learning_rate=1e6", "train.max_steps=100")
    assert done.returncode == 1
    assert "diverged" in done.stdout
    [row] = rows(tmp_path)
    assert row.data.tags["outcome"] == "diverged"
    assert "loss" in row.data.tags["reason"]
    assert row.info.status == "FAILED"
    assert "max_memory_allocated" in row.data.metrics  # what was measured until then is kept


@pytest.mark.long
def test_a_failed_run_is_reported_and_recorded_and_repeated_after_its_cause_is_fixed(tmp_path: Path, toy: list[str]):
    preset = tmp_path / "mine/variant/mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("defaults: [lora_r8]\nname: mine\ntarget_modules: [q_prj]\n")
    study = ["-m", "--config-dir", "mine", "study.name=x", *toy, "variant=mine"]
    done = run(tmp_path, "sweep", *study)
    assert done.returncode == 1
    assert "'q_prj' matches no linear module of LlamaForCausalLM; it has: q_proj, k_proj, v_proj" in done.stderr
    assert "Traceback" not in done.stderr
    report = run(tmp_path, "analysis", "study=x")
    assert report.returncode == 1
    assert "1 failed" in report.stderr
    assert not (tmp_path / "reports").exists()
    preset.write_text(preset.read_text().replace("q_prj", "q_proj"))
    fixed = run(tmp_path, "sweep", *study)
    assert fixed.returncode == 0, fixed.stderr
    assert [row.data.tags["outcome"] for row in rows(tmp_path)] == ["failed", "ok"]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def below(coordinator: subprocess.Popen) -> list[int]:
    """The coordinator's fork server, and the processes of its runs."""
    servers = children(coordinator.pid)
    return [*servers, *(child for server in servers for child in children(server))]


def running_child(coordinator: subprocess.Popen, *others: int) -> int:
    """The process of a run: the coordinator reads its output, and writes the run's log. Another process waits for the
    next run."""
    end = time.monotonic() + 90
    while time.monotonic() < end and coordinator.poll() is None:
        for process in set(below(coordinator)) - set(others):
            with contextlib.suppress(OSError):
                opened = [os.readlink(file) for file in Path(f"/proc/{coordinator.pid}/fd").iterdir()]
                # The base model is prepared in another folder.
                logs = any(name.endswith("run.log") and "/outputs/" in name for name in opened)
                own = os.readlink(f"/proc/{coordinator.pid}/fd/1")  # also of a process that waits
                if logs and os.readlink(f"/proc/{process}/fd/1") in {*opened} - {own}:
                    time.sleep(0.5)
                    return process
        time.sleep(0.1)
    raise AssertionError("no run was started")


def ended(process: int, within_seconds: float) -> bool:
    """Whether a process ends in time. A process in state Z has ended too: in a container without an init, no parent
    collects an orphan."""
    end = time.monotonic() + within_seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "sweep", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


LEARNS = ["task.score=token_accuracy", "variant=fft", "variant.learning_rate=1e-2,1e-7", "train.max_steps=60"]


@pytest.mark.long
def test_a_run_that_was_not_launched_is_launched_with_a_larger_budget(tmp_path: Path, toy: list[str]):
    study = ["-m", "variant=fft,lora_r8", *toy, "study.predict_memory=true"]

    def outcomes() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in rows(tmp_path):
            found.setdefault(row.data.tags["variant"], []).append(row.data.tags["outcome"])
        return found

    none = run(tmp_path, "sweep", *study, "study.memory_budget_gib=0.00001")
    assert "no run of this study was ok" in none.stderr
    assert outcomes() == {"fft": ["oom"], "lora_r8": ["oom"]}
    again = run(tmp_path, "sweep", *study, "study.memory_budget_gib=0.00002")
    assert "no run of this study was ok" in again.stderr
    assert outcomes() == {"fft": ["oom"], "lora_r8": ["oom"]}
    needed = {row.data.tags["variant"]: row.data.metrics["memory/predicted_bytes"] for row in rows(tmp_path)}
    between = (needed["fft"] + needed["lora_r8"]) / 2 / 2**30
    assert run(tmp_path, "sweep", *study, f"study.memory_budget_gib={between}").returncode == 0
    assert outcomes() == {"fft": ["oom"], "lora_r8": ["oom", "ok"]}
    assert (
        run(
            tmp_path, "sweep", *study, f"study.memory_budget_gib={between}", "study.launch_despite_prediction=true"
        ).returncode
        == 0
    )
    assert outcomes() == {"fft": ["oom", "ok"], "lora_r8": ["oom", "ok"]}


@pytest.mark.long
def test_a_run_that_is_clearly_worse_is_stopped(tmp_path: Path, toy: list[str]):
    """With the second learning rate the model learns nothing, and needs as much memory as with the first."""
    evaluating = ["train.eval_steps=15", "hydra.sweeper.pruner=dominance"]
    done = run(tmp_path, "sweep", "-m", "study.name=x", *toy, *LEARNS, *evaluating)
    assert done.returncode == 0, done.stderr
    good, bad = rows(tmp_path)
    assert [row.data.tags["outcome"] for row in (good, bad)] == ["ok", "pruned"]
    assert "needs no more memory and is clearly better" in bad.data.tags["reason"]
    steps = [point.step for point in client(tmp_path).get_metric_history(bad.info.run_id, "eval/score")]
    assert steps == [15, 30]  # of 60: two evaluations, after the warm-up
    study = optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.number for trial in study.best_trials] == [0]


@pytest.mark.long
def test_the_setting_in_contention_gets_the_further_seeds(tmp_path: Path, toy: list[str]):
    adaptive = ["study.replicates=adaptive", "seed=0,1,2,3", "task.data.n_validation=400"]
    done = run(tmp_path, "sweep", "-m", "study.name=x", *toy, *LEARNS, *adaptive)
    assert done.returncode == 0, done.stderr
    seeds = {}
    for row in rows(tmp_path):
        seeds.setdefault(row.data.tags["setting"], []).append(int(row.data.tags["seed"]))
    assert seeds == {"fft learning_rate=0.01": [0, 1, 2, 3], "fft learning_rate=1e-07": [0, 1]}
    study = optuna.load_study(study_name="x", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2


@pytest.mark.long
def test_a_killed_child_leaves_a_row_and_a_killed_coordinator_can_continue(tmp_path: Path, toy: list[str]):
    study = ["-m", "study.name=killed", "variant=lora_r8", "seed=0,1", *toy, "train.max_steps=4000"]
    coordinator = start(tmp_path, *study)
    child = running_child(coordinator)
    os.kill(child, signal.SIGKILL)
    running_child(coordinator, child)  # the next one: the study continues
    [first, _] = rows(tmp_path)
    assert (first.data.tags["outcome"], first.info.status) == ("killed", "KILLED")
    assert "SIGKILL" in first.data.tags["reason"]
    processes = below(coordinator)
    coordinator.kill()
    out, _ = coordinator.communicate(timeout=60)
    assert "by SIGKILL" in out
    assert len(processes) >= 2
    assert all(ended(process, within_seconds=20) for process in processes)
    assert [row.data.tags["outcome"] for row in rows(tmp_path)] == ["killed", "killed"]

    coordinator = start(tmp_path, *study)
    running_child(coordinator)
    coordinator.send_signal(signal.SIGINT)
    out, err = coordinator.communicate(timeout=30)
    assert coordinator.returncode == 130
    assert "Traceback" not in err
    last = rows(tmp_path)
    assert [row.data.tags["outcome"] for row in last] == ["killed"] * 3
    assert "Ctrl-C" in last[-1].data.tags["reason"]
    assert {row.info.status for row in last} == {"KILLED"}
