"""Multi-label classification against scikit-learn and against the model's own loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from conftest import compose
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import Nothing, evaluate, fit, loaded

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.datasets import LabelSet, Splits
from sweep.datasets.files import Files
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.multi_label_f1 import MultiLabelF1
from sweep.tasks.classification import Classification
from sweep.tasks.multi_label import MultiLabel

NAMES = ["bad", "good", "long"]
EXAMPLES = [
    {"text": f"the film was {'good' if i % 2 else 'bad'}{' and very fine' * (i % 4)}", "label": label}
    for i, label in enumerate(["bad", "good", '["bad", "long"]', " good , long ", "[]", "good"] * 4)
]
SETS = st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=12)


def task(**changes: Any) -> MultiLabel:
    metrics = {"f1_micro": MultiLabelF1(), "f1_macro": MultiLabelF1(average="macro"), "accuracy": Accuracy()}
    return MultiLabel(data=Nothing(), metrics=metrics, score="f1_micro", **changes)


def bound(**changes: Any) -> MultiLabel:
    return task(**changes).bind(Splits(train=EXAMPLES, validation=EXAMPLES))


@settings(deadline=None)
@given(SETS, st.data())
def test_f1_is_scikit_learn_s(wanted: list[set[str]], data: Any):
    from sklearn.metrics import f1_score

    got = [data.draw(st.sets(st.sampled_from(NAMES))) for _ in wanted]
    references, predictions = ([json.dumps(sorted(one)) for one in sets] for sets in (wanted, got))
    truth, answer = (np.array([[name in one for name in NAMES] for one in sets]) for sets in (wanted, got))
    occurring = [i for i in range(3) if truth[:, i].any() or answer[:, i].any()]
    micro, macro = (MultiLabelF1(average=average).score(predictions, references) for average in ("micro", "macro"))
    assert micro == pytest.approx(f1_score(truth, answer, average="micro", zero_division=0))
    by_label = f1_score(truth, answer, average=None, zero_division=0)
    assert macro == pytest.approx(by_label[occurring].mean() if occurring else 0.0)
    for index in occurring:
        assert MultiLabelF1(only=NAMES[index]).score(predictions, references) == pytest.approx(by_label[index])


def test_labels_are_read_from_lists_json_and_names_with_a_separator():
    found = bound()
    assert found.labels == NAMES
    assert found.number(" good , long ") == found.number('["long", "good"]') == [0.0, 1.0, 1.0]
    assert found.number("[]") == [0.0, 0.0, 0.0]
    assert found.read("long,bad") == '["bad", "long"]'
    assert bound(separator=" , ").labels == NAMES


def test_it_learns_and_reports_each_label(tmp_path: Path):
    checkpoints.distilbert(tmp_path)
    model, tokenizer = loaded(bound(), tmp_path)
    assert model.config.problem_type == "multi_label_classification"
    before = evaluate(bound(), model, tokenizer, EXAMPLES).scores
    fit(model, bound(), tokenizer, EXAMPLES, rate=3e-3, max_steps=60)
    model.eval()
    found = evaluate(bound(), model, tokenizer, EXAMPLES)
    assert found.scores["f1_micro"] > before["f1_micro"]
    assert {"f1/bad", "f1/good"} <= found.scores.keys()
    with torch.no_grad():
        inputs = tokenizer([e["text"] for e in EXAMPLES], padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        chosen = (model(**inputs).logits.sigmoid() > 0.5).tolist()
    wanted = [json.dumps([n for n, yes in zip(NAMES, row, strict=True) if yes]) for row in chosen]
    assert [row["prediction"] for row in found.rows] == wanted


def test_micro_batches_give_the_loss_of_the_whole_batch(tmp_path: Path):
    checkpoints.distilbert(tmp_path)
    losses = []
    for micro, accumulated in ((8, 1), (2, 4)):
        model, tokenizer = loaded(bound(), tmp_path)
        model.config.dropout = model.config.attention_dropout = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        changes = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulated}
        losses.append(fit(model, bound(), tokenizer, EXAMPLES[:8], **changes))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_list_of_labels_is_read_and_other_tasks_refuse_it(tmp_path: Path):
    file = tmp_path / "topics.jsonl"
    rows = [{"text": f"text {i}", "label": ["a", "b"][: i % 3]} for i in range(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = Files(train=str(file), validation=str(file)).load()
    assert isinstance(splits.train[0]["label"], LabelSet)
    assert task().bind(splits).labels == ["a", "b"]
    one = Classification(data=Nothing(), metrics={"accuracy": Accuracy()}, score="accuracy")
    with pytest.raises(UserError, match=r"has a list as label.*or use task=multi_label"):
        one.bind(splits)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=multi_label", "+metric@task.metrics.f=f1_macro"], "f is not about sets of labels"),
        (["task=classification", "+metric@task.metrics.f=multi_label_f1_micro"], "it is for task=multi_label"),
        (["task=multi_label", "train.label_smoothing=0.1"], "is for one label per example"),
        (["task=multi_label", "+loss@train.loss=class_weights"], "is for task=classification"),
    ],
)
def test_what_is_about_one_label_is_refused(overrides: list[str], message: str):
    with pytest.raises(ConfigError) as caught:
        parse(compose(*overrides))
    assert message in " ".join(str(caught.value).split())


@pytest.mark.parametrize(("label", "message"), [('["a"', "are no list"), ("other", "the data also has 'other'")])
def test_a_label_that_cannot_be_read_is_refused(label: str, message: str):
    wrong = [{"text": "x", "label": label}]
    with pytest.raises(UserError, match=message):
        task(labels=NAMES).bind(Splits(train=EXAMPLES, validation=[*EXAMPLES, *wrong]))
