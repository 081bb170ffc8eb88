"""Training that goes wrong is noticed at once; its record holds suggestions for its own config, and warnings."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, compose
from transformers import AutoModelForCausalLM, AutoTokenizer

from sweep.config.schema import RunConfig, parse
from sweep.core.record import Outcome, Record
from sweep.datasets import scan
from sweep.diagnostics import mitigations, sanity_checks
from sweep.diagnostics.annotate import last_phase, lines, machine_of, remarked
from sweep.diagnostics.mitigations import Mitigation, Situation
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.f1 import F1
from sweep.metrics.r2 import R2
from sweep.metrics.rmse import Rmse
from sweep.tasks.generation import encode_pairs, pad_batch
from sweep.training.divergence import SKIPPED_IN_A_ROW, STEPS, Diverged, DivergenceWatch
from sweep.training.fit import fit
from sweep.variants.full import Full

RATE = 2e-4
VARIANT = Full(name="fft", learning_rate=RATE)


def config(*overrides: str) -> RunConfig:
    return parse(compose(*overrides))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_a_number_ends_training_at_once(loss: float):
    with pytest.raises(Diverged, match=r"loss is (nan|inf|-inf) at step 3"):
        DivergenceWatch().check(3, loss, 1.0)


def test_a_loss_may_rise_for_some_steps_but_must_fall_again():
    watch = DivergenceWatch(guess=3.0)
    watch.check(0, 4.0, 1.0)
    for step in range(STEPS - 1):
        watch.check(step, 8.1, 1.0)
    watch.check(9, 7.9, 1.0)
    for step in range(STEPS - 1):
        watch.check(step, 8.1, 1.0)
    with pytest.raises(Diverged, match="above 8 "):
        watch.check(20, 8.1, 1.0)


def test_gradients_that_are_not_numbers_end_training_except_while_fp16_searches_its_scale():
    with pytest.raises(Diverged, match="gradient norm is nan at step 1, while the loss is still a number"):
        DivergenceWatch().check(1, 2.0, math.nan)
    scaled = DivergenceWatch(scaled=True)
    for _ in range(3):
        for step in range(SKIPPED_IN_A_ROW - 1):
            scaled.check(step, 2.0, math.inf)
        scaled.check(30, 2.0, 1.0)
    for step in range(SKIPPED_IN_A_ROW - 1):
        scaled.check(step, 2.0, math.inf)
    with pytest.raises(Diverged, match="keeps these gradients inside fp16"):
        scaled.check(40, 2.0, math.inf)


def test_training_stops_at_a_gradient_that_is_not_a_number(tiny_checkpoint: Path):
    """The loss is a number in that step: only the backward pass overflows."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    seen = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return gradient * (math.inf if len(seen) == 3 else 1.0)

    model.get_input_embeddings().weight.register_hook(overflow)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    data = encode_pairs(tokenizer, scan.ScanAroundRight(n_train=64, n_validation=1).load().train, 64)
    train = config("train.max_steps=10", "train.micro_batch_size=4", "train.gradient_accumulation_steps=1").train
    with pytest.raises(Diverged, match=r"the gradient norm is (nan|inf) at step 3"):
        fit(model, data, pad_batch(tokenizer), train, learning_rate=1e-3, seed=0)
    assert len(seen) == 3


def overrides(steps: list[Mitigation]) -> list[str]:
    return [step.overrides for step in steps]


def after_oom(given: RunConfig, **known: str | None) -> list[Mitigation]:
    return mitigations.suggestions(Outcome.OOM, Situation(given, **known))


def after_divergence(given: RunConfig, precision: str) -> list[Mitigation]:
    return mitigations.suggestions(Outcome.DIVERGED, Situation(given, precision=precision))


def test_suggestions_after_divergence_are_for_these_settings():
    steps = after_divergence(
        config(
            "variant.learning_rate=0.01", "train.max_grad_norm=0", "train.warmup_ratio=0", "train.weight_decay=0.1",
            "train.adam_beta2=0.95",
        ),
        "fp16",
    )  # fmt: skip
    assert overrides(steps) == [
        "variant.learning_rate=0.003", "train.max_grad_norm=1", "train.precision=bf16", "train.warmup_ratio=0.03",
        "train.weight_decay=0.01", "train.adam_beta2=0.999",
    ]  # fmt: skip
    assert "it was 0.01" in steps[0].why
    assert overrides(after_divergence(config("variant.learning_rate=3e-4"), "fp32")) == ["variant.learning_rate=0.0001"]
    wild = config("variant=fft", "variant.learning_rate=5", "study.learning_rate_multiplier=2")
    assert str(after_divergence(wild, "fp32")[0]) == (
        "variant.learning_rate=0.001 study.learning_rate_multiplier=1: a lower rate; it was 10"
    )


ALL_AGAINST_OOM = [
    "train.eval_batch_size=25",
    "train.activation_checkpointing=true",
    "train.micro_batch_size=4 train.gradient_accumulation_steps=4",
    "train.optimizer=adamw_8bit",
    "train.optimizer=paged_adamw_8bit",
    "variant=qlora_r8",
    "train.precision=bf16",
    "train.parallelism=fsdp",
    "train.max_length=50",
]


def test_suggestions_after_oom_are_ordered_by_cost_and_leave_out_what_is_done():
    given = config("variant=lora_r8", "train.micro_batch_size=8", "train.devices_per_run=2")
    assert overrides(after_oom(given, precision="fp32")) == ALL_AGAINST_OOM
    done = config(
        "variant=qlora_r16", "train=low_memory", "train.micro_batch_size=1", "train.gradient_accumulation_steps=16",
        "train.max_length=40", "train.eval_batch_size=1",
    )  # fmt: skip
    assert after_oom(done, precision="bf16") == []


def test_a_smaller_evaluation_batch_is_suggested_only_where_evaluation_may_have_run_out():
    named = {phase: overrides(after_oom(config(), phase=phase))[0] for phase in ("load", "train", "eval", None)}
    assert [phase for phase, first in named.items() if "eval_batch_size" in first] == ["eval", None]


def test_the_general_lists_have_the_members_and_the_order_of_the_suggestions():
    diverged = after_divergence(
        config("train.max_grad_norm=0", "train.warmup_ratio=0", "train.weight_decay=0.1", "train.adam_beta2=0.95"),
        "fp16",
    )
    for outcome, steps in ((Outcome.OOM, ALL_AGAINST_OOM), (Outcome.DIVERGED, overrides(diverged))):
        keys = list(dict.fromkeys(step.partition("=")[0] for step in steps))
        places = [mitigations.GENERAL[outcome].index(key) for key in keys]
        assert places == sorted(places)
        assert mitigations.GENERAL[outcome].count(";") == len(keys) - 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("variant", "micro"), [("fft", 8), ("lora_r32", 3), ("lora_qv", 2), ("dora_r16", 2), ("ia3", 2)]
)
def test_each_suggestion_is_a_config_that_runs_on_the_same_batch(variant: str, micro: int):
    """What is typed and what is changed are the same, and neither changes the optimizer's batch."""
    given = [f"variant={variant}", f"train.micro_batch_size={micro}"]
    plain = compose(*given)
    parsed = parse(plain)
    steps = [*after_oom(parsed, precision="fp32"), *after_divergence(parsed, "bf16")]
    assert steps
    for step in steps:
        typed = parse(compose(*given, *shlex.split(step.overrides)))
        changed = parse(mitigations.changed(plain, step.changes))
        assert typed.train.batch_size == parsed.train.batch_size
        assert typed.train == changed.train
        own = {"name": "", "learning_rate": 1.0}
        assert replace(typed.variant, **own) == replace(changed.variant, **own)
        assert typed != parsed


def test_predicted_savings_are_shown_where_they_are_known():
    plain = compose("variant=lora_r8")
    steps = after_oom(parse(plain), device_type="cpu", precision="fp32")

    def half_when_quantized(configs):
        return [None if c["train"]["max_length"] == 50 else 2**30 / (1 + ("QLoRA" in c["variant"]["_target_"]))
                for c in configs]  # fmt: skip

    lines = mitigations.text(mitigations.with_savings(steps, plain, half_when_quantized)).splitlines()
    assert lines[0].startswith("1. train.eval_batch_size=25: ")
    assert lines[0].endswith("(predicted to save nothing here)")
    quantized = next(line for line in lines if "variant=" in line)
    assert quantized.endswith(
        "variant=qlora_r8: hold the frozen base in 4 bits, and train LoRA on it (predicted to save 512.0 MiB)"
    )
    assert "predicted" not in next(line for line in lines if "max_length" in line)


def test_the_lists_can_be_read_without_torch():
    """The report uses them, and must start in a second."""
    check = "import sys, sweep.diagnostics.mitigations; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def rows(predictions: str, references: str) -> list[dict[str, str]]:
    return [{"prediction": p, "reference": r} for p, r in zip(predictions, references, strict=True)]


def test_chance_level_is_the_score_of_the_most_frequent_answer():
    assert sanity_checks.chance(Accuracy(), rows("aabb", "aaab")) == {
        "eval/majority_baseline": 0.75,
        "eval/distinct_predictions": 2.0,
    }
    # F1 of the constant answer "a": of a, 2·3/(4+3); of b, 0.
    found = sanity_checks.chance(F1(average="macro"), rows("aabb", "aaab"))
    assert found["eval/majority_baseline"] == pytest.approx((2 * 3 / 7) / 2)
    assert sanity_checks.chance(ExactMatch(), rows("abcd", "abcd"))["eval/majority_baseline"] == 0.25
    assert sanity_checks.chance(Accuracy(), [{"reference": "a"}]) == {}


def test_a_score_within_noise_of_chance_level_gives_a_warning():
    def said(score: float, guess: float, count: int = 400, higher: bool = True) -> str:
        measured = {"score": score, "eval/majority_baseline": guess, "eval/examples": count}
        return " ".join(sanity_checks.warnings(measured, higher, RATE, VARIANT))

    noise = 2 * math.sqrt(0.25 / 400)
    assert "at chance level" in said(0.5 + noise - 0.001, 0.5)
    assert said(0.5 + noise + 0.001, 0.5) == ""
    assert "at chance level" in said(0.0, 0.0)
    assert said(0.01, 0.0) == ""
    assert "at chance level" in said(0.6, 0.5, higher=False)


def test_a_loss_that_does_not_move_gives_a_warning():
    generator = torch.Generator().manual_seed(0)
    noise = (0.1 * torch.randn(80, generator=generator)).tolist()
    flat = sanity_checks.moved([3 + n for n in noise])
    assert flat["train/first_loss"] == pytest.approx(3, abs=0.1)
    [said] = sanity_checks.warnings(flat, True, RATE, VARIANT)
    assert "did not decrease: 2.98 in the first quarter of the steps, 3 in the last" in said
    assert "was 0.0002: try 0.002, and 2e-05" in said
    assert "was 1000: try 0.1, a usual one" in " ".join(sanity_checks.warnings(flat, True, 1000.0, VARIANT))
    falling = sanity_checks.moved([3 - 0.01 * step + n for step, n in enumerate(noise)])
    assert list(sanity_checks.warnings(falling, True, RATE, VARIANT)) == []
    assert sanity_checks.moved([3.0] * 11) == {}


def test_the_constant_answer_of_numbers_is_their_mean():
    rows = [{"reference": str(number), "prediction": "2"} for number in (1, 1, 2, 6)]
    assert sanity_checks.chance(R2(), rows)["eval/majority_baseline"] == pytest.approx(0.0)
    assert sanity_checks.chance(Rmse(), rows)["eval/majority_baseline"] == pytest.approx((17 / 4) ** 0.5)


def test_truncation_and_one_answer_for_all_give_warnings():
    measured = {
        "data/truncated_fraction": 0.04, "data/validation_truncated_examples": 2, "eval/distinct_predictions": 1.0,
        "eval/examples": 20, "data/dropped_examples": 5, "data/train_examples": 95,
    }  # fmt: skip
    said = list(sanity_checks.warnings(measured, True, RATE, VARIANT))
    assert said[0] == "the answer is the same for all 20 validation examples"
    assert said[1].startswith("4% of the training examples were cut")
    assert said[2].startswith("10% of the validation examples were cut")
    assert said[3].startswith("5% of the training examples were left out")
    assert "with the same text" in " ".join(
        sanity_checks.warnings({"data/contaminated_fraction": 0.02}, True, RATE, VARIANT)
    )
    less = {"data/contaminated_fraction": 0.01, "data/truncated_fraction": 0.02, "data/dropped_examples": 1}
    fine = {**measured, **less, "data/validation_truncated_examples": 0, "eval/distinct_predictions": 2.0}
    assert list(sanity_checks.warnings(fine, True, RATE, VARIANT)) == []


def test_the_record_holds_suggestions_and_warnings():
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.DIVERGED, facts={"device": "cpu"})
    said = remarked(record, config("train.max_grad_norm=5"), {}, "fp32")
    assert said.facts["suggestions"].splitlines()[1] == "2. train.max_grad_norm=1: clip gradients; it was 5"
    assert said.facts["device"] == "cpu"
    assert "  Try, each by itself:" in lines(said)
    ok = replace(record, outcome=Outcome.OK, measurements={"score": 0.9, "eval/majority_baseline": 0.1})
    assert remarked(ok, config(), {}, "fp32").facts == {"device": "cpu"}
    assert lines(ok) == []


def test_the_machine_is_that_of_the_run():
    facts = {"memory_source": "cuda_allocator", "capability": "9.0", "device": "H100"}
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OOM, facts=facts)
    machine = machine_of(record.ended(Outcome.OOM, **{"memory/capacity_bytes": 80.0 * 2**30}))
    assert (machine.kind, machine.capability, machine.capacity_bytes) == ("cuda", (9, 0), 80 * 2**30)
    assert machine_of(replace(record, facts={})).kind == "cpu"  # a run that the host killed reports nothing


def test_the_phase_that_ran_out_is_the_last_one_that_was_entered():
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OOM)
    assert last_phase(record) is None
    times = {"time/load_seconds": 1.0, "time/train_seconds": 1.0}
    assert last_phase(replace(record, measurements=times)) == "train"
    assert last_phase(replace(record, measurements={**times, "time/eval_seconds": 1.0})) == "eval"
