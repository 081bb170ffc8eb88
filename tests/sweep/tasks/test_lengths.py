"""The length of training texts where the config gives none, and the other defaults of a model that is not embedded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import compose
from hypothesis import given
from hypothesis import strategies as st

from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.launch import preparation
from sweep.launch.device_leases import Lease
from sweep.memory import Machine, Unpredictable, predictor, workload
from sweep.tasks.lengths import usual_length

REAL = ["model=pretrained", "model.path=somewhere/model"]


def usual(lengths: list[int], positions: int | None = None):
    task = SimpleNamespace(lengths=lambda tokenizer, examples: [lengths[index] for index in examples])
    base = SimpleNamespace(to_dict=lambda: {"n_positions": positions} if positions else {})
    return usual_length(task, None, range(len(lengths)), base)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=300), st.sampled_from([None, 8, 512, 4096]))
def test_at_least_95_percent_are_not_cut_and_a_shorter_length_would_cut_more(lengths: list[int], positions: int | None):
    found = usual(lengths, positions)
    share = sum(length <= found.tokens for length in lengths) / len(lengths)
    assert found.tokens <= min(positions or 2048, 2048)
    if found.limit:
        assert found.tokens == min(positions or 2048, 2048)
    else:
        assert share >= 0.95
        fewer = found.tokens - 8
        assert fewer < 8 or sum(length <= fewer for length in lengths) / len(lengths) < 0.95


def test_the_sentence_says_what_is_cut():
    assert (
        usual([10] * 19 + [900])
        .sentence()
        .startswith("train.max_length = 16 tokens: 95% of 20 training examples have no more; the longest has 900")
    )
    assert "none of 2 training examples is longer" in usual([10, 16]).sentence()
    assert "the model's positions allow no more" in usual([900, 900], 512).sentence()


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs", "length"),
    [
        ([], 250, None, 100),
        (["train.epochs=2"], None, 2, 100),
        (REAL, None, 3, None),
        ([*REAL, "train.max_steps=40"], 40, None, None),
        ([*REAL, "train.epochs=1", "train.max_length=64"], None, 1, 64),
        (["model=distilbert", "task=classification"], None, 3, None),
        (["experiment=imdb_distilbert"], None, 2, 256),
    ],
)
def test_own_values_win_over_the_model_s_and_the_embedded_base_keeps_its_own(
    overrides: list[str], steps: int | None, epochs: float | None, length: int | None
):
    train = parse(compose(*overrides)).train
    assert (train.max_steps, train.epochs, train.max_length) == (steps, epochs, length)


def test_the_validation_examples_of_a_real_model_are_limited():
    files = ["task=classification", "data@task.data=files", "task.data.train=a.csv"]
    assert compose(*REAL, *files)["task"]["data"]["n_validation"] == 3000
    assert compose(*REAL, *files, "task.data.n_validation=7")["task"]["data"]["n_validation"] == 7
    assert compose(*files)["task"]["data"]["n_validation"] is None
    assert compose("experiment=glue_roberta")["task"]["data"]["n_validation"] is None


@pytest.fixture
def plain(tiny_checkpoint: Path, tmp_path: Path) -> dict:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"text": "{"walk " * (100 if i < 3 else i % 30 + 1)}"}}\n' for i in range(100)))
    return compose(
        "model=pretrained", f"model.path={tiny_checkpoint}", "task=language_modeling", "data@task.data=files",
        f"task.data.train={file}", "train.micro_batch_size=2",
    )  # fmt: skip


@pytest.mark.slow
def test_the_preparation_finds_the_length_says_it_and_it_is_a_condition(plain: dict, caplog: pytest.LogCaptureFixture):
    config = parse(plain)
    found = preparation.prepare(plain, Lease(gpus=()))
    lengths = [len(ids) for ids in config.task.inputs(config.model.load_tokenizer(), config.task.data.load().train)]
    length = int(found.facts["train.max_length"])
    assert sum(one <= length for one in lengths) >= 0.95 * len(lengths)
    assert f"train.max_length = {length} tokens: 95% of 90 training examples" in caplog.text
    conditions = preparation.conditions_of(config, plain, [], found)
    assert conditions["train.max_length"] == str(length)
    run = preparation.PreparedRun(config=config, plain=plain, folder=Path(), lease=Lease(gpus=())).with_max_length()
    assert (run.config.train.max_length, run.pinned()["train"]["max_length"]) == (length, length)
    assert workload.find(config, Machine(kind="cpu")).length <= length


def test_virtual_tokens_that_the_found_length_leaves_no_room_for_are_a_fault(plain: dict):
    config = parse({**plain, "variant": compose("variant=prompt_tuning")["variant"]})
    found = preparation.Preparation({"train.max_length": "128", "device": "d"}, {}, Machine(kind="cpu"))
    with pytest.raises(ConfigError, match=r"train\.max_length = 128 .*20 virtual tokens exceeds"):
        preparation.conditions_of(config, plain, [], found)


def test_without_data_and_length_there_is_no_prediction(plain: dict):
    plain["task"]["data"]["train"] = "elsewhere.jsonl"
    report = SimpleNamespace(progress=lambda *_: None)
    [found], _ = predictor.predict_all([plain], Machine(kind="cpu"), {}, report)
    assert isinstance(found, Unpredictable)
