"""What people type from habit: each answer names the override to type instead, and that override is valid."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from conftest import ROOT, compose
from omegaconf import OmegaConf

from sweep.cli import validation
from sweep.core.errors import ConfigError
from sweep.core.familiar_names import _KEYS
from sweep.core.setting import select
from sweep.hydra_compat.composer import Composer

TYPED = {
    "learning_rate=1e-4": "variant.learning_rate=1e-4",
    "lr=1e-3": "variant.learning_rate=1e-3",
    "train.lr=1e-3": "variant.learning_rate=1e-3",
    "train.learning_rate=1e-3": "variant.learning_rate=1e-3",
    "train.num_train_epochs=2": "train.epochs=2",
    "num_train_epochs=2": "train.epochs=2",
    "epochs=2": "train.epochs=2",
    "max_steps=10": "train.max_steps=10",
    "train.batch_size=4": "train.micro_batch_size=4",
    "per_device_train_batch_size=4": "train.micro_batch_size=4",
    "train.per_device_eval_batch_size=4": "train.eval_batch_size=4",
    "gradient_accumulation_steps=4": "train.gradient_accumulation_steps=4",
    "max_seq_length=512": "train.max_length=512",
    "train.max_seq_len=64": "train.max_length=64",
    "train.optim=adamw_torch": "train.optimizer=adamw_torch",
    "train.gradient_checkpointing=true": "train.activation_checkpointing=true",
    "bf16=true": "train.precision=bf16",
    "train.fp16=true": "train.precision=fp16",
    "load_in_4bit=true": "variant=qlora_r16",
    "lora.r=4": "variant.r=4",
    "lora_r=4": "variant.r=4",
    "r=4": "variant.r=4",
    "lora_alpha=32": "variant.alpha=32",
    "lora_dropout=0.1": "variant.dropout=0.1",
    "target_modules=[q_proj]": "variant.target_modules=[q_proj]",
    "model_name_or_path=gpt2": "model.path=gpt2",
    "model=distilbert-base-uncased": "model=pretrained model.path=distilbert-base-uncased",
    "model=mistralai/Mistral-7B-v0.1": "model=pretrained model.path=mistralai/Mistral-7B-v0.1",
    "model.path=gpt2": "model=pretrained model.path=gpt2",
    "data=files": "data@task.data=files",
    "data.train=x.csv": "data@task.data=files task.data.train=x.csv",
    "data=x.csv": "data@task.data=files task.data.train=x.csv",
    "task.data=x.csv": "data@task.data=files task.data.train=x.csv",
    "data@task.data=x.csv": "data@task.data=files task.data.train=x.csv",
    "dataset=tatsu-lab/alpaca": "data@task.data=hub task.data.path=tatsu-lab/alpaca",
    "train_file=x.csv": "task.data.train=x.csv",
    "seeds=3": "seed=3",
    "n_trials=30": "hydra.sweeper.n_trials=30",
    "study_name=a": "study.name=a",
    "weight_decay=0.1": "train.weight_decay=0.1",
    "variant=lora_r8,fft": "-m",
}


def answer(*overrides: str, multirun: bool = False) -> str:
    arguments = argparse.Namespace(overrides=list(overrides), multirun=multirun, config_dir=None, config_name=None)
    with pytest.raises(ConfigError) as caught:
        validation.check(ROOT / "conf", arguments, "config", validation.validate)
    return " ".join(f"{fault.subject} {fault.message}" for fault in caught.value.faults)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("typed", "meant"), TYPED.items())
def test_the_answer_to_a_habit_names_the_override(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert meant in answer(typed)


@pytest.mark.slow
def test_a_habit_is_answered_in_a_study_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "variant.learning_rate=0.001" in answer("lr=1e-3,1e-4", multirun=True)


def test_every_key_that_is_named_exists():
    with Composer(ROOT / "conf", None, "config") as composer:
        composed = composer.compose(["model=pretrained", "model.path=x", "data@task.data=files"], multirun=True)
    plain = OmegaConf.to_container(composed, resolve=False)
    for key in _KEYS:
        parent, _, last = key.rpartition(".")
        assert last in (select(plain, parent) if parent else plain), key


@pytest.mark.parametrize(("given", "steps"), [([], 250), (["train.epochs=2"], None), (["train.max_steps=9"], 9)])
def test_epochs_replace_the_default_number_of_steps(given: list[str], steps: int | None):
    assert compose(*given)["train"]["max_steps"] == steps
