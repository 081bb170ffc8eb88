"""Labels: compared as values, learnt on one scale, and in the order of a head that comes with the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from small_tasks import GRADES, REVIEWS, classification, evaluate, fit, loaded, regression
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sweep.core.errors import UserError
from sweep.datasets import Example, Splits
from sweep.metrics.pearson import Pearson
from sweep.metrics.r2 import R2
from sweep.metrics.rmse import Rmse
from sweep.models.pretrained import Pretrained
from sweep.tasks.labels import head_order, value_of


def labelled(*labels: str) -> list[Example]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def bound(train: list[Example], validation: list[Example], test: list[Example] = (), **changes: Any) -> Any:
    task = replace(classification(), **{"labels": None, **changes})
    return task.bind(Splits(train=train, validation=validation, test=test))


@pytest.mark.parametrize(
    ("label", "value"),
    [("0.0", "0"), ("-0", "0"), ("10", "10"), ("1e2", "100"), (" 2.50 ", "2.5"), ("-1", "-1"), ("+3", "3"),
     (".5", "0.5"), ("good ", "good"), ("1.2.3", "1.2.3"), ("nan", "nan"), ("1e999", "1e999"), ("1_000", "1_000"),
     ("٣", "٣")],
)  # fmt: skip
def test_numbers_are_compared_by_value_and_others_without_white_space(label: str, value: str):
    assert value_of(label) == value


def test_two_spellings_of_a_label_are_one_class(tmp_path: Path):
    """A column that once had gaps comes out of pandas as 0.0, 1.0, 2.0; the other file has 0, 1, 2."""
    train, validation = labelled("0.0", "1.0", "2.0", "x "), labelled("0", "1", "2", "x")
    task = bound(train, validation)
    assert task.labels == ["0", "1", "2", "x"]
    checkpoints.distilbert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    by_train, by_validation = (task.encode(tokenizer, examples, 16) for examples in (train, validation))
    assert [row["labels"] for row in by_train] == [row["labels"] for row in by_validation] == [0, 1, 2, 3]
    model, tokenizer = loaded(task, tmp_path)
    rows = evaluate(task, model, tokenizer, train).rows
    assert [row["reference"] for row in rows] == ["0", "1", "2", "x"]
    assert {row["accuracy"] for row in rows} >= {1.0}  # a constant answer is right once
    assert bound(train, validation, labels=["2", "1.0", "0", " x"]).labels == ["2", "1", "0", "x"]


@pytest.mark.parametrize(
    ("train", "validation", "test", "message"),
    [
        (["Good", "bad"], ["good", "bad"], [], "the labels '[Gg]ood', '[Gg]ood' differ in upper and lower case only"),
        (["a", "b"], ["neg", "pos"], [], r"2 of 2 validation examples have a label that no training example has"),
        (["0", "1"], ["0", "1"], ["-1", "-1"], r"2 of 2 test examples have the label -1.*task\.data\.test=null"),
    ],
)
def test_labels_of_one_side_only_are_refused(train: Any, validation: Any, test: Any, message: str):
    with pytest.raises(UserError, match=message):
        bound(labelled(*train), labelled(*validation), labelled(*test))
    named = bound(labelled("Good", "good"), labelled("good", "Good"), labels=["Good", "good"])
    assert named.labels == ["Good", "good"]  # on purpose


def test_a_class_that_one_side_lacks_is_told_and_measured():
    train, validation = labelled("a", "b", "c"), labelled("a", "b", "a", "b", "d")
    splits = Splits(train=train, validation=validation, test=labelled("a", "e"), labels=("a", "b", "c", "d", "f"))
    task = replace(classification(), labels=None).bind(splits)
    said = list(task.remarks(splits))
    assert said == [
        "the labels 'd' of the validation split occur nowhere in training: the model cannot learn them",
        "the labels 'c' of the training split occur nowhere in validation: the score does not measure them",
        "the labels 'e' of the test split occur nowhere in training or validation: the model has no output for them",
        "the labels 'f' have no example",
    ]
    assert "e" not in task.labels
    assert task.describe(splits) == {"data/unseen_label_fraction": 0.2}


# Heads that come with a checkpoint


def sentiment(folder: Path, names: list[str]) -> torch.nn.Module:
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    checkpoints.distilbert(folder, "DistilBertForSequenceClassification", **ids)
    return AutoModelForSequenceClassification.from_pretrained(folder)


THREE: list[Example] = [{"text": text, "label": label} for text, label in zip(
    ["the film was good", "bad and dull", "it was fine", "a very good story", "i hated it", "not bad"],
    ["positive", "negative", "neutral"] * 2, strict=True)]  # fmt: skip


@pytest.mark.parametrize("names", [["Positive", "neutral", "NEGATIVE"], ["negative", "positive", "neutral"]])
def test_a_head_with_the_data_s_labels_keeps_their_order(tmp_path: Path, names: list[str]):
    """The checkpoint's own answers, without a step of training, are the truth."""
    own = sentiment(tmp_path, names)
    base = Pretrained(path=str(tmp_path))
    task = bound(THREE, THREE).for_base(base.architecture())
    assert [label.lower() for label in task.labels] == [name.lower() for name in names]
    model, tokenizer = loaded(task, tmp_path)
    found = [row["prediction"] for row in evaluate(task, model, tokenizer, THREE).rows]
    with torch.no_grad():
        wanted = [own(**tokenizer(e["text"], return_tensors="pt")).logits.argmax().item() for e in THREE]
    assert found == [names[index].lower() for index in wanted]


@pytest.mark.parametrize("names", [["joy", "anger", "fear"], ["LABEL_0", "LABEL_1", "LABEL_2"]])
def test_a_head_for_other_labels_is_made_anew_although_their_number_is_the_same(tmp_path: Path, names: list[str]):
    own = sentiment(tmp_path, names)
    task = bound(THREE, THREE).for_base(Pretrained(path=str(tmp_path)).architecture())
    assert task.labels == ["negative", "neutral", "positive"]
    model, _ = loaded(task, tmp_path)
    assert not torch.allclose(model.classifier.weight, own.classifier.weight)
    assert 0.01 < float(model.classifier.weight.detach().std()) < 0.04
    assert torch.equal(
        model.distilbert.embeddings.word_embeddings.weight, own.distilbert.embeddings.word_embeddings.weight
    )


def test_names_of_a_head():
    assert head_order(["b", "a"], {0: "A", 1: "b"}) == ["a", "b"]
    assert head_order(["0", "1"], {0: "LABEL_0", 1: "LABEL_1"}) == ["0", "1"]
    assert head_order(["a", "b"], {0: "a", 1: "c"}) is None
    assert head_order(["a", "b"], {0: "a"}) is None


# Regression


@pytest.mark.parametrize("scale", [1.0, 30.0, 250_000.0])
def test_a_regression_learns_numbers_of_any_size(tmp_path: Path, scale: float):
    """The same labels on another scale: the answers are the same on that scale, and the loss is equal."""
    checkpoints.bert(tmp_path)
    sizes: list[Example] = [{"text": f"{'good ' * i}bad", "label": str(scale * (i + 20))} for i in range(8)]
    metrics = {"pearson": Pearson(), "rmse": Rmse(), "r2": R2()}
    task = replace(regression(), metrics=metrics, center=None, scale=None)
    task = task.bind(Splits(train=sizes, validation=sizes))
    model, tokenizer = loaded(task, tmp_path)
    losses = fit(model, task, tokenizer, sizes, rate=1e-2, max_steps=40)
    assert losses[0] == pytest.approx(1.0, abs=0.5)
    found = evaluate(task, model.eval(), tokenizer, sizes)
    assert found.scores["r2"] > 0.8
    assert found.scores["rmse"] < scale
    with torch.no_grad():
        raw = torch.cat([model(**tokenizer(e["text"], return_tensors="pt")).logits[0] for e in sizes])
    labels = torch.tensor([float(e["label"]) for e in sizes], dtype=torch.float64)
    expected = labels.mean() + labels.std(correction=0) * raw
    assert [float(row["prediction"]) for row in found.rows] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_scale_is_that_of_the_training_labels_or_the_config_s():
    task = replace(regression(), center=None, scale=None)
    task = task.bind(Splits(train=labelled("2", "4", "6"), validation=GRADES))
    assert (task.center, task.scale) == (4.0, pytest.approx((8 / 3) ** 0.5))
    assert task.number("6") == pytest.approx(2 / task.scale)
    assert task.usage() == "The label is 4 + 1.63299316 × the model's output."
    own = replace(regression(), center=0.0, scale=1.0).bind(Splits(train=GRADES, validation=GRADES))
    assert own.number("2.5") == 2.5
    assert bound(REVIEWS, REVIEWS).labels == ["neg", "pos"]
