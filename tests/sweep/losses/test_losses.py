"""Losses against closed forms, and the mean over a batch for every division into micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Losses, compose
from transformers import AutoModelForCausalLM

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.losses.class_weights import ClassWeights
from sweep.losses.focal import Focal
from sweep.tasks import IGNORED
from sweep.tasks.generation import encode_pairs, pad_batch
from sweep.training.fit import fit
from sweep.training.options import Train

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [-1.0, 3.0, 0.0]])
LABELS = torch.tensor([0, 2, 1])
ROWS = [{"labels": label} for label in (0, 0, 0, 0, 1, 1, 2, 2)]


def negative(logits: torch.Tensor, label: int) -> float:
    return float(logits.logsumexp(0) - logits[label])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_the_paper_s(gamma: float):
    found = Focal(gamma=gamma).per_label(LOGITS, LABELS).tolist()
    for row, label, value in zip(LOGITS, LABELS, found, strict=True):
        p = float(row.softmax(0)[label])
        assert value == pytest.approx((1 - p) ** gamma * negative(row, label), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_an_ignored_or_a_certain_label_has_neither_loss_nor_a_gradient_that_is_not_a_number(gamma: float):
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    losses = Focal(gamma=gamma).per_label(logits, torch.tensor([0, IGNORED]))
    losses.sum().backward()
    assert losses.tolist() == [0, 0]
    assert logits.grad.isfinite().all()


def test_balanced_weights_give_each_class_the_same_share_and_the_mean_one():
    loss = ClassWeights().bind(["a", "b", "c"], ROWS)
    assert loss.ordered == pytest.approx((8 / (3 * 4), 8 / (3 * 2), 8 / (3 * 2)))
    assert sum(loss.ordered[row["labels"]] for row in ROWS) / len(ROWS) == pytest.approx(1)


def test_named_weights_multiply_the_cross_entropy():
    loss = ClassWeights(weights={"b": 0.5, "c": 3.0, "a": 2.0}).bind(["a", "b", "c"], ROWS)
    wanted = [w * negative(row, y) for w, row, y in zip((2.0, 3.0, 0.5), LOGITS, LABELS, strict=True)]
    assert loss.per_label(LOGITS, LABELS).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"a": 1.0, "d": 1.0}, "'d' is not a label"), ({"a": 1.0, "b": 2.0}, "no weight for 'c'")],
)
def test_weights_for_other_labels_are_refused(weights: dict[str, float], message: str):
    with pytest.raises(UserError, match=message):
        ClassWeights(weights=weights).bind(["a", "b", "c"], ROWS)


def test_a_loss_that_does_not_fit_the_task_is_a_fault_of_the_config():
    with pytest.raises(ConfigError, match=r"train\.loss = ClassWeights .*is for task=classification"):
        parse(compose("+loss@train.loss=class_weights"))
    with pytest.raises(ConfigError, match=r"train\.loss = Focal .*task=regression predicts numbers"):
        parse(compose("task=regression", "+loss@train.loss=focal"))
    with pytest.raises(ConfigError, match=r"label_smoothing = 0\.1 .*train\.loss replaces it"):
        parse(compose("+loss@train.loss=focal", "train.label_smoothing=0.1"))
    assert parse(compose("+loss@train.loss=focal", "train.loss.gamma=1.0")).train.loss == Focal(gamma=1.0)


@pytest.mark.parametrize("smooth", [False, True])
def test_a_loss_is_the_mean_over_all_labels_of_the_batch(tiny_checkpoint: Path, smooth: bool):
    """With gamma = 0, focal loss is cross-entropy: the same as the model's own, in one batch and in micro-batches."""
    from transformers import AutoTokenizer

    from sweep.datasets import scan

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows = encode_pairs(tokenizer, scan.ScanAroundRight(n_train=8, n_validation=1).load().train, 64)

    def run(**changes: object) -> list[float]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
        values = {"max_steps": 1, "micro_batch_size": 8, "max_length": 64, "optimizer": "adamw_torch", **changes}
        report = Losses()
        fit(model, rows, pad_batch(tokenizer), Train(**values), learning_rate=1e-3, seed=0, report=report)
        return report.values

    own = Focal(gamma=2.0 if smooth else 0.0)
    whole = run(loss=own)
    assert run(loss=own, micro_batch_size=2, gradient_accumulation_steps=4) == pytest.approx(whole, rel=1e-5)
    if smooth:
        assert whole[0] < run()[0]  # every label counts less
    else:
        assert whole == pytest.approx(run(), rel=1e-5)
