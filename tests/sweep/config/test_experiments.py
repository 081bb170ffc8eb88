"""The experiments that need the Hub run whole on a tiny checkpoint of the same architecture and local data, with
`model.path` and `task.data.path` overridden and nothing else."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pandas as pd
import pytest
from conftest import ROOT, compose
from hydra.core.hydra_config import HydraConfig

from sweep.cli import validation
from sweep.config.schema import parse
from sweep.core.artifacts import EXAMPLES_FILE
from sweep.core.errors import ConfigError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.memory import Machine
from sweep.training_run import prepare, run_training

EXPERIMENTS = sorted(
    str(p.relative_to(ROOT / "conf/experiment").with_suffix("")) for p in ROOT.glob("conf/experiment/**/*.yaml")
)
VARIANTS = sorted(str(p.relative_to(ROOT / "conf/variant")) for p in ROOT.glob("conf/variant/*/*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_opens_with_its_command_and_builds(name: str):
    text = (ROOT / "conf/experiment" / f"{name}.yaml").read_text()
    assert text.splitlines()[1].startswith("# python -m sweep")
    assert f"experiment={name}" in text.splitlines()[1]
    parse(compose(f"experiment={name}"))
    for variant in str(HydraConfig.get().sweeper.params.variant).split(","):
        assert (ROOT / "conf/variant" / f"{variant}.yaml").is_file()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_of_an_experiment_builds_in_it(variant: str):
    parse(compose(f"experiment={Path(variant).parent}", f"variant={variant.removesuffix('.yaml')}"))


def test_several_experiments_are_refused():
    arguments = Namespace(
        overrides=["experiment=glue_roberta,quickstart"], multirun=True, config_dir=None, config_name=None
    )
    with pytest.raises(ConfigError, match="names several experiments"):
        validation.check(ROOT / "conf", arguments, "config", lambda composed, multirun: [])


def table(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def reviews(folder: Path) -> None:
    rows = [
        {"text": f"the film was {'good' if i % 2 else 'bad'} {'and very fine ' * (i % 5)}", "label": str(i % 2)}
        for i in range(80)
    ]
    table(folder / "train.csv", rows)
    table(folder / "test.csv", rows[:12])


def instructions(folder: Path) -> None:
    lines(
        folder / "train.jsonl",
        [{"instruction": f"say {i}", "input": "", "output": f"it is {i}"} for i in range(120)],
    )


def problems(folder: Path) -> None:
    rows = [{"question": f"what is {i} + 1?", "answer": f"one more #### {i + 1}"} for i in range(40)]
    lines(folder / "train.jsonl", rows)
    lines(folder / "test.jsonl", rows[:6])


def pairs(folder: Path) -> None:
    rows = [
        {"sentence1": f'a "story {i}', "sentence2": f"story {i if i % 2 else 0}", "label": str(i % 2)}
        for i in range(34)
    ]
    (folder / "mrpc").mkdir()
    for name, part in {"train": rows, "validation": rows[:6]}.items():
        head = "\t".join(rows[0])
        body = ["\t".join(row.values()) for row in part]
        (folder / "mrpc" / f"{name}.tsv").write_text("\n".join([head, *body]) + "\n")


def grades(folder: Path) -> None:
    rows = [{"sentence1": f"story {i}", "sentence2": "story", "label": f"{i % 6}.{i % 4}"} for i in range(34)]
    (folder / "stsb").mkdir()
    table(folder / "stsb" / "train.csv", rows)
    table(folder / "stsb" / "validation.csv", rows[:6])


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {
    "imdb_distilbert": (checkpoints.distilbert, reviews),
    "gpt2_instruct": (checkpoints.gpt2, instructions),
    "llama3_qlora": (checkpoints.llama, problems),
    "glue_roberta/mrpc": (checkpoints.roberta, pairs),
    "glue_roberta/stsb": (checkpoints.roberta, grades),
}


def run_experiment(name: str, tmp_path: Path, *overrides: str) -> tuple[Record, dict[str, str]]:
    make_model, make_data = CASES[name]
    for part in ("model", "data", "run"):
        (tmp_path / part).mkdir()
    make_data(tmp_path / "data")
    config = compose(
        f"experiment={name}",
        f"model.path={make_model(tmp_path / 'model')}",
        f"task.data.path={tmp_path / 'data'}",
        *overrides,
    )
    facts, _, machine = prepare(config, silent)
    assert machine == Machine(kind="cpu")
    record = Record(variant=config["variant"]["name"], setting="s", seed=0, outcome=Outcome.KILLED)
    return run_training(RunRequest(config=config, record=record, folder=str(tmp_path / "run")), silent), facts


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_experiment_runs_whole_on_local_files(name: str, tmp_path: Path):
    record, facts = run_experiment(name, tmp_path)
    assert record.outcome is Outcome.OK, record.reason
    measured = record.measurements
    config = parse(compose(f"experiment={name}"))
    assert measured["score"] == measured[f"eval/{config.task.score}"]
    assert {f"eval/{metric}" for metric in config.task.metrics} <= measured.keys()
    assert measured["trainable_params"] < measured["total_params"]
    batches = measured["data/train_examples"] // config.train.batch_size
    assert measured["train/steps"] == max(1, config.train.epochs * batches)
    assert facts["data_revision"].startswith("sha256:")
    rows = pd.read_parquet(tmp_path / "run" / EXAMPLES_FILE)
    assert len(rows) == (6 if name != "imdb_distilbert" else 12)
    assert {"index", "reference", "prediction"} <= set(rows.columns)


def parsed(base: Path, *overrides: str) -> Any:
    kind = ("task=classification", "data@task.data=files", "model=pretrained")
    return parse(compose(*kind, f"model.path={base}", *overrides))


def test_only_an_export_looks_at_the_test_split(tmp_path: Path):
    from sweep.deployment.evaluation_setup import EvaluationSetup

    rows = [{"text": "the film was good", "label": "pos"}, {"text": "it was bad", "label": "neg"}]
    for name, count in {"train": 8, "validation": 4, "test": 3}.items():
        table(tmp_path / f"{name}.csv", (rows * count)[:count])
    files = {split: f"task.data.{split}={tmp_path / split}.csv" for split in ("train", "validation", "test")}
    base = checkpoints.distilbert(tmp_path / "model")
    ground = EvaluationSetup.of(parsed(base, *files.values()))
    model = ground.base()
    scores = ground.test_scores(model)
    predictions = {row["text"]: row["prediction"] for row in ground.score(model).rows}
    right = [predictions[row["text"]] == row["label"] for row in (rows * 2)[:3]]
    assert scores["accuracy"] == pytest.approx(sum(right) / 3)
    assert EvaluationSetup.of(parsed(base, files["train"], files["validation"])).test_scores(model) == {}
