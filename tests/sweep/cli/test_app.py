"""The command line: fast, without heavy imports, and clear about faults."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, Program

HEAVY = ("torch", "transformers", "mlflow", "optuna", "pandas", "peft", "matplotlib")


def test_help_is_what_hydra_prints():
    """Hydra's own help takes seconds longer."""
    arguments = ["--help", "variant=lora_r8", "--config-dir", "tests"]

    def printed(function: str) -> str:
        code = f"import sweep.__main__ as commands; commands.{function}()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "variant: bitfit, dora_r16" in printed("main")
    assert printed("main") == printed("application")


def test_help_imports_nothing_heavy(program: Program):
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('sweep', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as e:\n    print('code', e.code)\n"
        f"print([m for m in {HEAVY} if m in sys.modules])\n"
    )
    for arguments, exit_code in ((["--help"], 0), (["train.max_steps=x"], 2), (["-m", "variant=fft,nope"], 2)):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        *_, code_line, modules = done.stdout.splitlines()
        assert (code_line, modules) == (f"code {exit_code}", "[]"), done.stderr


def test_faults_of_overrides_and_values_are_reported_together(program: Program):
    done = program(
        "sweep", "variant=nope", "train.max_stps=3", "train.max_steps=0", "task.score=bleu", "foo",
        "hydra.run.dir=/proc/x",
        "tracking.uri=http://me:planted-secret@127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    for words in (
        "7 faults in the config:",
        "variant = nope",
        "no such preset; there is: bitfit,",
        "did you mean max_steps?",
        "must be at least 1",
        "is not among task.metrics; there is: exact_match, token_accuracy",
        "is not an override",
        "hydra.run.dir = /proc/x",
        "cannot be reached at 127.0.0.1:9",
    ):
        assert words in done.stderr
    assert "planted-secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_no_file_is_written_if_the_config_is_wrong(program: Program, tmp_path):
    assert program("sweep", "train.max_steps=0").returncode == 2
    assert program("sweep", "-m", "variant=fft,nope").returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("~seed", "seed  is missing"),
        ("~study.name", "'study.name' not found"),
        ("model.cache=/proc/x", "model.cache = /proc/x"),
        ("hydra.verbose=3", "hydra.verbose = 3"),
        ("study.name=../up", "between slashes"),
        (f"study.name={'x' * 300}", "at most 200 bytes"),
        ("variant=glob(nope*)", "has no value"),
        ("hydra.sweeper.storage=${tracking.uri}", "database of its own"),
        ("~hydra.sweep.dir", "hydra.sweep.dir"),
        ("hydra.sweep.dir=/etc/hosts", "/etc/hosts is not a folder"),
        ("tracking.artifacts=/etc/hosts", "/etc/hosts is not a folder"),
        ("study.score_threshold=1e-300", "must be at least 0.01"),
        ("train.max_steps=range(0,1000000000)", "train.max_steps = 0"),
    ],
)
def test_a_config_that_hydra_cannot_run_is_refused(program: Program, tmp_path, override: str, words: str):
    done = program("sweep", "-m", override)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_value_of_a_sweep_is_checked(program: Program):
    done = program("sweep", "-m", "variant=fft,lora_r8,lorra", "train.max_steps=5,-5")
    assert done.returncode == 2
    assert "variant = lorra" in done.stderr
    assert "did you mean lora?" in done.stderr
    assert "train.max_steps = -5" in done.stderr


def test_a_folder_with_the_user_s_own_configs(program: Program, tmp_path):
    (tmp_path / "mine/variant").mkdir(parents=True)
    (tmp_path / "mine/variant/lora_r4.yaml").write_text("defaults: [lora_r8]\nname: lora_r4\nr: 4\n")
    done = program("sweep", "--config-dir", "mine", "variant=lora_r4", "--cfg", "job", "-p", "variant")
    assert done.returncode == 0
    assert "r: 4" in done.stdout
    assert "lora_r4" in program("sweep", "--config-dir", "mine", "variant=x").stderr
    assert "is not a folder" in program("sweep", "--config-dir", "nowhere").stderr


def test_a_config_is_shown_with_its_faults(program: Program):
    shown = program("sweep", "--cfg", "job", "variant.r=0", "train.max_steps=5")
    assert "max_steps: 5" in shown.stdout
    assert "variant.r = 0" in shown.stderr
    assert shown.returncode == 2
    both = program("sweep", "-m", "--cfg", "job")
    assert both.returncode == 2
    assert "cannot go with --cfg" in both.stderr


def test_completion_lists_the_presets(program: Program):
    line = "paretune variant="
    done = program("sweep", "-sc", "query=bash", env={"COMP_LINE": line, "COMP_POINT": str(len(line))})
    presets = sorted(path.stem for path in (ROOT / "conf/variant").glob("*.yaml"))
    assert done.stdout.split() == [f"variant={preset}" for preset in presets]


@pytest.mark.long
def test_analysis_reports_what_is_missing(program: Program):
    assert "Run a study first" in program("analysis").stderr
    nowhere = program("analysis", "study=x")
    assert nowhere.returncode == 1
    assert "Run a study first" in nowhere.stderr
    faulty = program(
        "analysis", "study=x", "source=y", "threshold=2", "out=", "+folder=z", "allow_different=device", "compare=[a]"
    )
    assert faulty.returncode == 2
    for words in ("study and source and compare", "threshold = 2", "must be a folder, or auto", "unknown option",
                  "allow_different = device", "source = y ", "is not a file"):  # fmt: skip
        assert words in faulty.stderr, faulty.stderr


def test_the_fault_of_a_cell_names_the_key_that_is_wrong(program: Program):
    done = program("sweep", "-m", "variant=fft,lora_r8", "task.data.nothing=1,2", "study.memory_budget_gib=null")
    assert done.returncode == 2
    assert "task.data.nothing = 1" in done.stderr
    assert "study.memory_budget_gib" not in done.stderr


def test_a_value_that_hydra_does_not_read_is_shown_with_its_quotes(program: Program, tmp_path):
    done = program("analysis", "source=results (1).csv")
    assert done.returncode == 2
    assert "Quote it for the shell and for Hydra: 'source=\"results (1).csv\"'" in " ".join(done.stderr.split())
    assert "is not a file" in program("analysis", 'source="results (1).csv"').stderr
    assert "Quote it" not in program("analysis", "compare=[a").stderr


@pytest.mark.parametrize("flag", ["--help", "--hydra-help", "--version"])
def test_help_works(program: Program, flag: str):
    done = program("sweep", flag)
    assert done.returncode == 0
    assert done.stdout
