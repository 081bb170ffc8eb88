"""Language modelling against transformers' own loss on the same texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from conftest import compose
from small_tasks import Nothing, evaluate, fit, loaded

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.datasets import Splits
from sweep.datasets.files import Files
from sweep.memory import Machine, workload
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.perplexity import Perplexity
from sweep.tasks.generation import Generation
from sweep.tasks.language_modeling import LanguageModeling

TEXTS = [{"text": text} for text in ("the film was good", "it", "a very long review of the film" * 3, "bad")]


def task(**changes: Any) -> LanguageModeling:
    return LanguageModeling(data=Nothing(), metrics={"perplexity": Perplexity()}, score="perplexity", **changes)


def test_all_tokens_are_labels_and_long_texts_are_divided_and_none_is_lost(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    _, tokenizer = loaded(task(), tmp_path)
    rows = task().encode(tokenizer, TEXTS, 16)
    whole = [[*tokenizer(one["text"])["input_ids"], tokenizer.eos_token_id] for one in TEXTS]
    assert all(row["labels"] == row["input_ids"] and len(row["input_ids"]) <= 16 for row in rows)
    flat = [token for row in rows for token in row["input_ids"]]
    assert flat == [token for ids in whole for token in (ids[:-1] if len(ids) % 16 == 1 else ids)]
    assert rows.truncated == rows.dropped == 0


def test_the_perplexity_is_that_of_the_model_s_own_loss(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    model, tokenizer = loaded(task(), tmp_path)
    found = evaluate(task(), model, tokenizer, TEXTS)
    sums, counts = 0.0, 0
    for one in TEXTS:
        ids = torch.tensor([[*tokenizer(one["text"])["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            sums += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        counts += ids.shape[1] - 1
    assert found.scores["perplexity"] == pytest.approx(math.exp(sums / counts), rel=1e-4)
    assert sum(row["perplexity/tokens"] for row in found.rows) == counts


def test_training_lowers_the_perplexity(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    model, tokenizer = loaded(task(), tmp_path)
    before = evaluate(task(), model, tokenizer, TEXTS).scores["perplexity"]
    fit(model, task(), tokenizer, TEXTS * 4, rate=1e-2, max_steps=20)
    model.eval()
    assert evaluate(task(), model, tokenizer, TEXTS).scores["perplexity"] < 0.5 * before


def test_a_file_with_one_column_of_texts_needs_no_other_key(tmp_path: Path):
    file = tmp_path / "korean.jsonl"
    file.write_text("".join(f'{{"text": "<s>Instruction: 사과 {i}\\nResponse: 과일</s>"}}\n' for i in range(20)))
    config = parse(compose("task=language_modeling", "data@task.data=files", f"task.data.train={file}"))
    splits = config.task.data.load()
    assert len(config.task.bind(splits).data.load().train) == 18
    assert not config.task.higher_is_better
    generating = Generation(data=Files(train=str(file)), metrics={"e": ExactMatch()}, score="e")
    with pytest.raises(UserError, match="Plain texts without a prompt are for task=language_modeling"):
        generating.bind(splits)


def test_what_has_no_text_and_metrics_of_answers_are_refused():
    with pytest.raises(UserError, match="example 1 of the train split has no text"):
        task().bind(Splits(train=[{"text": " "}], validation=TEXTS))
    with pytest.raises(UserError, match="no column is named 'text'"):
        task().bind(Splits(train=[{"label": "1"}], validation=TEXTS))
    with pytest.raises(ConfigError, match="rougeL needs an answer to compare"):
        parse(compose("task=language_modeling", "+metric@task.metrics.rougeL=rougeL"))


def test_the_workload_of_its_evaluation_is_the_longest_piece(tiny_checkpoint: Path, tmp_path: Path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"text": "{"walk " * (i + 1)}"}}\n' for i in range(40)))
    config = parse(
        compose(
            "model=pretrained", f"model.path={tiny_checkpoint}", "task=language_modeling", "data@task.data=files",
            f"task.data.train={file}", f"task.data.validation={file}", "train.max_length=16", "train.max_steps=4",
        )
    )  # fmt: skip
    found = workload.find(config, Machine(kind="cpu"))
    assert (found.from_data, found.length, found.prompt_length) == (True, 16, 16)
