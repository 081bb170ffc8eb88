"""Every row of the data is looked at before a run is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from conftest import compose
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import PAIRS, REVIEWS, classification, generation
from transformers import AutoConfig, AutoTokenizer

from sweep.config.schema import parse
from sweep.core.errors import ConfigError, UserError
from sweep.core.record import Outcome, Record
from sweep.core.reporter import silent
from sweep.core.run_request import RunRequest
from sweep.datasets import Example, Row, Splits
from sweep.launch.preparation import Preparation, conditions_of
from sweep.memory import Machine
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.exact_match import ExactMatch
from sweep.tasks import Task, row_checks
from sweep.tasks.generation import Generation
from sweep.tasks.seq2seq import Seq2Seq
from sweep.training_run import run_training

STRICT = (
    "{% for m in messages %}{% if m.role == 'user' and loop.index0 % 2 %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
)


def checked(task: Task, folder: Path, train: list[Example], validation: list[Example], max_length: int = 64) -> int:
    splits = Splits(train=train, validation=validation)
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return row_checks.check_rows(task, tokenizer, splits, max_length, base)


def turns(*roles: str) -> Any:
    example = Row(messages=[{"role": role, "content": "x"} for role in roles])
    example.place = "dev.jsonl, row 58"
    return example


@pytest.mark.parametrize("broken", ["train", "validation"])
@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["user", "user", "assistant"], "dev.jsonl, row 58: the chat template refuses .*roles must alternate"),
        (["assistant"], "dev.jsonl, row 58: the conversation begins with an answer"),
    ],
)
def test_a_conversation_that_the_template_refuses_is_found_in_any_row(
    tmp_path: Path, broken: str, roles: list[str], message: str
):
    checkpoints.llama(tmp_path)
    good = [turns("user", "assistant")] * 4
    splits = {"train": good, "validation": good, broken: [*good, turns(*roles)]}
    with pytest.raises(UserError, match=message):
        checked(generation(chat_template=STRICT), tmp_path, **splits)
    assert checked(generation(chat_template=STRICT), tmp_path, good, good) == 4


def test_a_token_without_an_embedding_is_found(tmp_path: Path):
    """A device assert on a GPU, an index error on the CPU."""
    checkpoints.llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"padding has the token '<pad>' with the id 258, and the model has 258 embeddings"
    ):
        checked(generation(), tmp_path, PAIRS, PAIRS)
    checkpoints.distilbert(tmp_path / "b", vocab_size=20)
    with pytest.raises(UserError, match=r"example 1 of the train split has the token .* the model has 20 embeddings"):
        checked(classification(), tmp_path / "b", [{"text": "hated it", "label": "neg"}, *REVIEWS], REVIEWS)


def test_prompts_that_leave_nothing_are_found(tmp_path: Path):
    checkpoints.gpt2(tmp_path, positions=64)
    with pytest.raises(UserError, match="max_length = 4 cuts off every response"):
        checked(generation(), tmp_path, PAIRS, PAIRS, max_length=4)
    with pytest.raises(UserError, match="leaves no room for a prompt in the model's 64 positions"):
        checked(generation(max_new_tokens=64), tmp_path, PAIRS, PAIRS)


def test_references_that_a_metric_cannot_read_are_found(tmp_path: Path):
    checkpoints.gpt2(tmp_path)
    task = generation(metrics={"exact_match": ExactMatch(rule="number")})
    with pytest.raises(UserError, match="example 21 of the validation split: its reference has no number"):
        checked(task, tmp_path, PAIRS, [*PAIRS, {"prompt": "x", "response": "none"}])


def test_a_limit_of_the_tokenizer_that_does_not_count_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoints.distilbert(tmp_path)
    assert checked(classification(), tmp_path, REVIEWS, REVIEWS, max_length=600) == len(REVIEWS)
    assert (
        "the tokenizer states a limit of 512 tokens (model_max_length); train.max_length = 600 decides" in caplog.text
    )


def test_special_tokens_in_the_data_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoints.llama(tmp_path)
    closed: list[Example] = [{**pair, "response": f"{pair['response']}</s>"} for pair in PAIRS]
    checked(generation(), tmp_path, [*closed, *PAIRS], closed)
    assert caplog.text.count("20 training texts begin or end with a special token") == 1


# Before anything is prepared


STRANGE = [
    "token_accuracy@1",
    "a/b",
    "a//b",
    "a/../b",
    "..",
    "a b",
    "/a",
    "a/",
    "%",
    "f1 (macro)",
    "ré-sumé",
    "a:b",
    "日本",
]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12) | st.sampled_from(STRANGE))
def test_a_metric_s_name_is_one_that_mlflow_takes(name: str):
    from mlflow.utils.validation import path_not_unique, validate_param_and_metric_name

    task = classification(metrics={"accuracy": Accuracy(), name: Accuracy()})
    refused = any("no name of a metric" in fault for _, fault in task.faults())
    logged = f"eval/{name}"
    assert refused == (not validate_param_and_metric_name(logged) or path_not_unique(logged))


def quantised(folder: Path, bits: int) -> Path:
    checkpoints.llama(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    quantization = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    file.write_text(json.dumps({**config, "quantization_config": quantization}))
    return folder


def test_a_published_quantised_base_is_for_variants_with_such_a_base(tmp_path: Path):
    base = quantised(tmp_path, 4)
    for variant in ("fft", "lora_r8", "lora8bit_r16", "bitfit"):
        with pytest.raises(ConfigError, match=r"published in 4; use *variant=qlora_r16"):
            parse(compose("model=pretrained", f"model.path={base}", f"variant={variant}"))
    parse(compose("model=pretrained", f"model.path={base}", "variant=qlora_r8"))
    with pytest.raises(ConfigError, match="variant=lora8bit_r16"):
        parse(compose("model=pretrained", f"model.path={quantised(tmp_path / 'b', 8)}", "variant=qlora_r8"))


def test_a_hub_model_has_its_limits_once_it_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = compose("model=pretrained", "model.path=owner/name", "train.max_length=200", "variant=lora_r8")
    config, ready = parse(plain), Preparation({"data_examples": "100"}, {}, Machine(kind="cpu"))
    conditions_of(config, plain, [], ready)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    checkpoints.llama(folder / "snapshots" / "abc", max_position_embeddings=128)
    with pytest.raises(ConfigError, match="exceeds the model's 128 positions"):
        conditions_of(config, plain, [], ready)


def test_a_batch_larger_than_what_is_left_is_refused(tmp_path: Path):
    plain = compose("train.micro_batch_size=4", "train.gradient_accumulation_steps=2", "variant=lora_r8")
    with pytest.raises(ConfigError, match="the batch of 8 is larger than the 7 training examples that are left"):
        conditions_of(parse(plain), plain, [], Preparation({"data_examples": "7"}, {}, Machine(kind="cpu")))


# Evaluation before training


def test_an_evaluation_that_fails_does_so_before_training(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluated = []

    def fails(self: Generation, model: Any, tokenizer: Any, examples: Any, *args: Any, **kwargs: Any) -> None:
        evaluated.append(len(examples))
        raise OverflowError("can't convert negative int to unsigned")

    monkeypatch.setattr(Generation, "evaluate", fails)
    record = Record(variant="v", setting="s", seed=0, outcome=Outcome.KILLED)
    config = compose(*toy, "variant=lora_r8")
    done = run_training(RunRequest(config=config, record=record, folder=str(tmp_path)), silent)
    assert (done.outcome, evaluated) == (Outcome.FAILED, [2])
    assert "train_seconds" not in done.measurements


@pytest.mark.parametrize("kind", [Generation, Seq2Seq])
def test_a_rehearsal_changes_neither_the_random_state_nor_the_model(tmp_path: Path, kind: type):
    from small_tasks import loaded

    from sweep.training.evaluator import Evaluator

    (checkpoints.llama if kind is Generation else checkpoints.t5)(tmp_path)
    task = generation(kind, temperature=2.0)
    model, tokenizer = loaded(task, tmp_path)
    train = parse(compose("train.precision=fp32")).train
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    Evaluator(task, model, tokenizer, PAIRS, train, "cpu").rehearse()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
