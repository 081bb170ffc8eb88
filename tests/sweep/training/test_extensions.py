"""Optimizers, schedules, callbacks and arguments that a config names: what is refused, and what they do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import compose
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments

from sweep.config.schema import parse
from sweep.core.construction import Construction
from sweep.core.errors import ConfigError, UserError
from sweep.datasets import scan
from sweep.losses import Loss
from sweep.memory import Machine, Prediction, predictor
from sweep.tasks.generation import encode_pairs, pad_batch
from sweep.training import trainer_arguments
from sweep.training.early_stopping import EarlyStopping
from sweep.training.extensions import check_extensions
from sweep.training.fit import fit
from sweep.training.options import Train

SEEN: list[tuple[str, float]] = []


class Watching(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics, **kwargs):
        SEEN.append(("score", metrics["eval_score"]))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "learning_rate" in logs:
            SEEN.append(("rate", logs["learning_rate"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hungry(Loss):
    """Cross-entropy and 4 × 40 MB in its backward pass: a tensor, its exponential, and the gradients of both."""

    def per_label(self, logits, labels):
        held = torch.ones(10_000_000, device=logits.device, requires_grad=True)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none") + 0 * held.exp()[0]


def train(**changes: object) -> Train:
    values = {"max_steps": 6, "micro_batch_size": 4, "max_length": 64, "optimizer": "adamw_torch", **changes}
    return Train(**values)


def by_name(target: str, **options: object) -> Construction:
    return Construction(target=target, options=options)


@pytest.fixture
def trained(tiny_checkpoint: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    rows = encode_pairs(tokenizer, scan.ScanAroundRight(n_train=32, n_validation=1).load().train, 64)

    def run(settings: Train, **more: object):
        model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
        result = fit(model, rows, pad_batch(tokenizer), settings, learning_rate=1e-3, seed=0, **more)
        return model.state_dict(), result

    return run


def test_every_argument_of_the_trainer_is_allowed_or_refused_with_a_reason():
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert set(trainer_arguments.ALLOWED) | set(trainer_arguments.REFUSED) == names
    assert not set(trainer_arguments.ALLOWED) & set(trainer_arguments.REFUSED)


def test_the_keys_that_stand_for_an_argument_exist():
    plain = compose()
    for key in trainer_arguments.OWN_KEYS:
        node = plain
        if key.startswith(("hydra.", "tracking.also")):
            continue
        for part in key.split("."):
            node = node[part]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+train.arguments.learning_rate=1", r"learning_rate is variant\.learning_rate here"),
        ("+train.arguments.auto_find_batch_size=true", "variants would not be comparable"),
        ("+train.arguments.adam_beta=0.9", r"did you mean adam_beta1\?"),
        ("train.callbacks=[{_target_: no_such_package.Mine}]", r"callbacks\[0\] .*No module named 'no_such_package'"),
        ("train.callbacks=x", "must be a list"),
        ("train.callbacks=[3]", "needs _target_"),
        ("train.callbacks=[{_target_: transformers.EarlyStoppingCallback}]", r"use train\.early_stopping_patience"),
        ("train.optimizer={_target_: torch.optim.SGD, lr: 1}", r"lr is set by variant\.learning_rate"),
        ("train.optimizer=sgd", r"train\.optimizer = sgd .*must be 'adamw_torch'"),
        ("train.early_stopping_patience=2", r"set train\.eval_steps too"),
    ],
)
def test_what_a_config_may_not_name_is_refused_before_anything_is_imported(override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        parse(compose(override))
    assert __import__("re").search(message, " ".join(str(caught.value).split()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": by_name("torch.optim.SDG")}, "train.optimizer: torch.optim.SDG cannot be imported"),
        ({"optimizer": by_name("json.dumps")}, "is not a class of torch.optim.Optimizer"),
        ({"optimizer": by_name("torch.optim.SGD", momentun=1)}, r"no such parameter; did you mean momentum\?"),
        ({"callbacks": [by_name("json.JSONDecoder")]}, r"callbacks\[0\]: json.JSONDecoder is not a transformers"),
        ({"arguments": {"adam_beta1": "much"}}, "train.arguments.adam_beta1 = much"),
        (
            {"lr_scheduler_type": by_name("torch.optim.lr_scheduler.ConstantLR"), "warmup_ratio": 0.1},
            "has no parameter num_warmup_steps",
        ),
    ],
)
def test_what_can_be_seen_only_in_the_class_is_refused_before_the_first_run(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        check_extensions(train(**changes))


def test_an_optimizer_by_its_class_is_the_one_that_has_its_name(trained):
    """SGD without momentum: one step is the gradient times the rate, so another rate scales the step."""
    named, _ = trained(train(adam_beta2=0.95))
    same, _ = trained(train(optimizer=by_name("torch.optim.AdamW", betas=[0.9, 0.95], weight_decay=0.0)))
    for name, weight in named.items():
        torch.testing.assert_close(weight, same[name], rtol=0, atol=1e-6)
    other, _ = trained(train(optimizer=by_name("torch.optim.SGD")))
    assert any(not torch.equal(weight, other[name]) for name, weight in named.items())


def test_a_schedule_by_its_function_is_the_one_that_has_its_name_with_the_run_s_steps(trained):
    SEEN.clear()
    watching = [by_name(f"{__name__}.Watching")]
    named = train(lr_scheduler_type="cosine", warmup_ratio=0.3, callbacks=watching)
    trained(named)
    function = by_name("transformers.get_cosine_schedule_with_warmup")
    trained(dataclasses.replace(named, lr_scheduler_type=function))
    rates = [value for _, value in SEEN]
    assert len(rates) == 12
    assert rates[:6] == rates[6:]


def test_early_stopping_counts_evaluations_without_a_better_score(trained):
    SEEN.clear()
    scores = iter([0.1, 0.3, 0.3, 0.2, 0.9])
    settings = train(max_steps=12, eval_steps=2, early_stopping_patience=2, callbacks=[by_name(f"{__name__}.Watching")])
    _, result = trained(settings, evaluate=lambda: (next(scores), 0.0))
    assert result.steps == 8
    assert [value for kind, value in SEEN if kind == "score"] == [0.1, 0.3, 0.3, 0.2]


def test_a_lower_score_may_be_the_better_one():
    stopping = EarlyStopping(1, higher_is_better=False)
    assert [stopping.is_over(score) for score in (3.0, 2.0, 2.5)] == [False, False, True]


def test_memory_is_predicted_with_the_loss_and_the_optimizer_of_the_config(tiny_checkpoint: Path):
    """SGD has no state, and AdamW 8 bytes for each parameter."""

    def peak(*overrides: str) -> Prediction:
        plain = compose(
            "model=pretrained", f"model.path={tiny_checkpoint}", "variant=fft", "train.micro_batch_size=1", *overrides
        )
        [found], _ = predictor.predict_all([plain], Machine(kind="cpu"), {}, SimpleNamespace(progress=lambda *_: None))
        assert isinstance(found, Prediction), found
        return found

    adam, sgd = peak(), peak("train.optimizer={_target_: torch.optim.SGD}")
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_checkpoint).parameters())
    assert adam.breakdown["optimizer_state"] == pytest.approx(8 * parameters, rel=0.01)
    assert sgd.breakdown.get("optimizer_state", 0) < 0.01 * parameters
    assert sgd.assumptions["optimizer"] == "torch.optim.SGD"
    own = peak(f"+train.loss={{_target_: {__name__}.Hungry}}", f"train.callbacks=[{{_target_: {__name__}.Watching}}]")
    assert own.tier == "trace"
    assert own.allocated_bytes - adam.allocated_bytes == pytest.approx(1.6e8, rel=0.01)
    assert "callbacks" in own.assumptions
