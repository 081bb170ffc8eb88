"""Configs: every YAML builds, a variant changes only its own group, and all faults are reported at once."""

from __future__ import annotations

import copy

import pytest
import yaml
from conftest import ROOT, compose

from sweep.config.schema import parse
from sweep.core.errors import ConfigError
from sweep.core.provenance import flatten

CONF = ROOT / "conf"
VARIANTS = sorted(path.stem for path in (CONF / "variant").glob("*.yaml"))
CHOICES = [
    (group, path.stem) for group in ("variant", "train", "task", "experiment") for path in (CONF / group).glob("*.yaml")
]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_preset_composes_and_builds(group: str, name: str):
    parse(compose(f"{group}={name}"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_only_variant(name: str):
    base, other = flatten(compose()), flatten(compose(f"variant={name}"))
    differing = {key for key in base.keys() | other.keys() if base.get(key) != other.get(key)}
    assert {key for key in differing if not key.startswith("variant.")} == set()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_preset_arrives_with_the_values_of_its_file(name: str):
    written = yaml.safe_load((CONF / "variant" / f"{name}.yaml").read_text())
    composed = compose(f"variant={name}")["variant"]
    for key, value in written.items():
        if key != "defaults" and not str(value).startswith("${"):
            assert composed[key] == (float(value) if key == "learning_rate" else value)
    assert composed["name"] == name


def test_each_variant_has_its_own_rate_and_lora_the_higher():
    rates = {name: compose(f"variant={name}")["variant"]["learning_rate"] for name in VARIANTS}
    assert rates["lora_r8"] >= 3 * rates["fft"]


def test_rates_follow_the_base():
    """The embedded base is tiny and takes fifteen times the rates of pretrained checkpoints; both are ten to one."""
    for base, full in {"scan_llama": 3e-4, "distilbert": 2e-5}.items():
        for variant, rate in {"fft": full, "lora_r16": 10 * full, "qlora_r16": 10 * full}.items():
            assert compose(f"model={base}", f"variant={variant}")["variant"]["learning_rate"] == pytest.approx(rate)
    assert compose("model=distilbert", "model.learning_rates={full: 1e-5}")["variant"]["learning_rate"] == 2e-4


def broken(**changes: object) -> dict:
    config = copy.deepcopy(compose())
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def faults_of(config: dict) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(config)
    return {fault.key: fault.message for fault in caught.value.faults}


def test_all_faults_are_reported_at_once():
    config = broken(
        variant__r=0,
        variant__dropuot=0.1,
        train__max_steps="many",
        train__precision="bf8",
        train__activation_checkpointing="yes",
        task__score="bleu",
        seed=-1,
    )
    faults = faults_of(config)
    assert faults["variant.r"] == "must be at least 1"
    assert faults["variant.dropuot"].startswith("unknown key; did you mean dropout?")
    assert faults["train.max_steps"] == "must be a whole number"
    assert faults["train.precision"] == "must be 'auto', 'fp32', 'bf16' or 'fp16'"
    assert faults["train.activation_checkpointing"] == "must be true or false"
    assert "exact_match" in faults["task.score"]
    assert faults["seed"] == "must be at least 0"
    assert len(faults) == 7


@pytest.mark.parametrize(
    ("key", "value"),
    [("train__max_steps", 8.5), ("train__max_steps", True), ("train__max_steps", "8"), ("train__weight_decay", "0.1")],
)
def test_a_value_of_the_wrong_type_is_not_converted(key: str, value: object):
    assert len(faults_of(broken(**{key: value}))) == 1


def test_rules_between_keys():
    assert (
        "larger than the 2000 training examples"
        in faults_of(broken(train__micro_batch_size=1001))["train.micro_batch_size"]
    )
    assert "128 positions" in faults_of(broken(train__max_length=129))["train.max_length"]
    assert "more than the 5685" in faults_of(broken(task__data__n_train=5600))["task.data.n_train"]
    assert "[q_proj]" in faults_of(broken(variant__target_modules="q_proj"))["variant.target_modules"]


@pytest.mark.parametrize(
    "target", ["os.system", "sweep.variants.Variant", "sweep.tasks.generation.Generation", "nope", 3]
)
def test_a_target_must_be_a_component_of_its_kind(target: object):
    assert "variant._target_" in faults_of(broken(variant___target_=target))


def test_a_preset_given_as_text_is_refused():
    assert "variant" in faults_of({**compose(), "variant": "lora"})
