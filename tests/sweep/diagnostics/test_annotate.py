"""When training goes wrong: noticed at once, with advice for these settings, and doubts where figures give reason."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import compose
from transformers import AutoModelForCausalLM, AutoTokenizer

from sweep.config.schema import RunConfig, parse
from sweep.core.record import Outcome, Record
from sweep.datasets import scan
from sweep.diagnostics import mitigations, sanity_checks
from sweep.diagnostics.annotate import lines, machine_of, remarked
from sweep.metrics.accuracy import Accuracy
from sweep.metrics.exact_match import ExactMatch
from sweep.metrics.f1 import F1
from sweep.tasks.generation import encode_pairs, pad_batch
from sweep.training.divergence import SKIPPED_IN_A_ROW, STEPS, Diverged, DivergenceWatch
from sweep.training.fit import fit

RATE = 2e-4


def config(*overrides: str) -> RunConfig:
    return parse(compose(*overrides))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_it_at_once(loss: float):
    with pytest.raises(Diverged, match=r"loss is (nan|inf|-inf) at step 3"):
        DivergenceWatch().check(3, loss, 1.0)


def test_a_loss_may_rise_for_some_steps_but_not_stay():
    watch = DivergenceWatch(guess=3.0)
    watch.check(0, 4.0, 1.0)
    for step in range(STEPS - 1):
        watch.check(step, 8.1, 1.0)
    watch.check(9, 7.9, 1.0)
    for step in range(STEPS - 1):
        watch.check(step, 8.1, 1.0)
    with pytest.raises(Diverged, match="above 8 "):
        watch.check(20, 8.1, 1.0)


def test_gradients_that_are_no_numbers_end_it_but_for_fp16_s_search_of_a_scale():
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


def test_training_stops_at_a_gradient_that_is_no_number(tiny_checkpoint: Path):
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


def overrides(steps: list[mitigations.Mitigation]) -> list[str]:
    return [step.overrides for step in steps]


def test_advice_after_divergence_is_for_these_settings():
    steps = mitigations.after_divergence(
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
    assert overrides(mitigations.after_divergence(config("variant.learning_rate=3e-4"), "fp32")) == [
        "variant.learning_rate=0.0001"
    ]
    wild = config("variant=fft", "variant.learning_rate=5", "study.learning_rate_multiplier=2")
    assert str(mitigations.after_divergence(wild, "fp32")[0]) == (
        "variant.learning_rate=0.001 study.learning_rate_multiplier=1: a lower rate; it was 10"
    )


def test_advice_after_oom_comes_in_the_order_of_the_check_list_and_leaves_out_what_is_done():
    steps = mitigations.after_oom(config("variant=lora_r8", "train.micro_batch_size=8"), "fp32", "cuda")
    assert overrides(steps) == [
        "variant=qlora_r8",
        "train.activation_checkpointing=true",
        "train.max_length=50",
        "train.micro_batch_size=4 train.gradient_accumulation_steps=4",
        "train.precision=bf16",
        "train.optimizer=paged_adamw_8bit",
    ]
    done = config(
        "variant=qlora_r16", "train=low_memory", "train.micro_batch_size=1", "train.gradient_accumulation_steps=16",
        "train.max_length=40",
    )  # fmt: skip
    assert mitigations.after_oom(done, "bf16", "cuda") == []


@pytest.mark.parametrize(("variant", "micro"), [("fft", 8), ("lora_r32", 3)])
def test_each_step_of_advice_is_a_config_that_runs_on_the_same_batch(variant: str, micro: int):
    """What is typed and what is changed are the same, and neither changes the optimizer's batch."""
    given = [f"variant={variant}", f"train.micro_batch_size={micro}"]
    plain = compose(*given)
    parsed = parse(plain)
    steps = [*mitigations.after_oom(parsed, "fp32", "cuda"), *mitigations.after_divergence(parsed, "bf16")]
    assert steps
    for step in steps:
        typed = parse(compose(*given, *step.overrides.split()))
        changed = parse(mitigations.changed(plain, step.changes))
        assert typed.train.batch_size == parsed.train.batch_size
        assert typed.train == changed.train
        assert typed.variant.quantized == changed.variant.quantized
        assert getattr(typed.variant, "r", None) == getattr(changed.variant, "r", None)
        assert typed != parsed


def test_predicted_savings_are_said_where_there_are_any():
    plain = compose("variant=lora_r8")
    steps = mitigations.after_oom(parse(plain), "fp32", "cpu")

    def half_when_quantized(configs):
        return [None if c["train"]["max_length"] == 50 else 2**30 / (1 + ("QLoRA" in c["variant"]["_target_"]))
                for c in configs]  # fmt: skip

    said = mitigations.text(mitigations.with_savings(steps, plain, half_when_quantized)).splitlines()
    assert said[0] == "1. variant=qlora_r8: hold the frozen base in 4 bits (predicted to save 512.0 MiB)"
    assert said[1].endswith("(predicted to save nothing here)")
    assert "predicted" not in next(line for line in said if "max_length" in line)


def rows(predictions: str, references: str) -> list[dict[str, str]]:
    return [{"prediction": p, "reference": r} for p, r in zip(predictions, references, strict=True)]


def test_chance_is_what_the_most_frequent_answer_scores():
    assert sanity_checks.chance(Accuracy(), rows("aabb", "aaab")) == {
        "eval/majority_baseline": 0.75,
        "eval/distinct_predictions": 2.0,
    }
    # F1 of the constant answer "a": of a, 2·3/(4+3); of b, 0.
    found = sanity_checks.chance(F1(average="macro"), rows("aabb", "aaab"))
    assert found["eval/majority_baseline"] == pytest.approx((2 * 3 / 7) / 2)
    assert sanity_checks.chance(ExactMatch(), rows("abcd", "abcd"))["eval/majority_baseline"] == 0.25
    assert sanity_checks.chance(Accuracy(), [{"reference": "a"}]) == {}


def test_a_score_at_chance_level_is_doubted_within_its_noise():
    def said(score: float, guess: float, count: int = 400, higher: bool = True) -> str:
        measured = {"score": score, "eval/majority_baseline": guess, "eval/examples": count}
        return " ".join(sanity_checks.doubts(measured, higher, RATE))

    noise = 2 * math.sqrt(0.25 / 400)
    assert "at chance level" in said(0.5 + noise - 0.001, 0.5)
    assert said(0.5 + noise + 0.001, 0.5) == ""
    assert "at chance level" in said(0.0, 0.0)
    assert said(0.01, 0.0) == ""
    assert "at chance level" in said(0.6, 0.5, higher=False)


def test_a_loss_that_does_not_move_is_doubted():
    generator = torch.Generator().manual_seed(0)
    noise = (0.1 * torch.randn(80, generator=generator)).tolist()
    flat = sanity_checks.moved([3 + n for n in noise])
    assert flat["train/first_loss"] == pytest.approx(3, abs=0.1)
    [said] = sanity_checks.doubts(flat, True, RATE)
    assert "did not move: 2.98 in the first quarter of the steps, 3 in the last" in said
    assert "was 0.0002: try 0.002, and 2e-05" in said
    assert "was 1000: try 0.1, a usual one" in " ".join(sanity_checks.doubts(flat, True, 1000.0))
    falling = sanity_checks.moved([3 - 0.01 * step + n for step, n in enumerate(noise)])
    assert list(sanity_checks.doubts(falling, True, RATE)) == []
    assert sanity_checks.moved([3.0] * 11) == {}


def test_truncation_and_one_answer_for_all_are_said():
    measured = {
        "data/truncated_fraction": 0.04, "eval/distinct_predictions": 1.0, "eval/examples": 20,
        "data/dropped_examples": 5, "data/train_examples": 95,
    }  # fmt: skip
    said = list(sanity_checks.doubts(measured, True, RATE))
    assert said[0] == "the answer is the same for all 20 validation examples"
    assert said[1].startswith("4% of the training examples were cut")
    assert said[2].startswith("5% of the training examples were left out")
    assert "word for word" in " ".join(sanity_checks.doubts({"data/contaminated_fraction": 0.02}, True, RATE))
    less = {"data/contaminated_fraction": 0.01, "data/truncated_fraction": 0.02, "data/dropped_examples": 1}
    assert list(sanity_checks.doubts({**measured, **less, "eval/distinct_predictions": 2.0}, True, RATE)) == []


def test_the_record_carries_both():
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.DIVERGED, facts={"device": "cpu"})
    said = remarked(record, config("train.max_grad_norm=5"), {}, "fp32")
    assert said.facts["suggestions"].splitlines()[1] == "2. train.max_grad_norm=1: clip gradients; it was 5"
    assert said.facts["device"] == "cpu"
    assert "  Try, each by itself:" in lines(said)
    ok = replace(record, outcome=Outcome.OK, measurements={"score": 0.9, "eval/majority_baseline": 0.1})
    assert remarked(ok, config(), {}, "fp32").facts == {"device": "cpu"}
    assert lines(ok) == []


def test_the_machine_is_the_run_s_own():
    facts = {"memory_source": "cuda_allocator", "capability": "9.0", "device": "H100"}
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OOM, facts=facts)
    machine = machine_of(record.ended(Outcome.OOM, **{"memory/capacity_bytes": 80.0 * 2**30}))
    assert (machine.kind, machine.capability, machine.capacity_bytes) == ("cuda", (9, 0), 80 * 2**30)
    assert machine_of(replace(record, facts={})).kind == "cpu"  # the host's killer leaves no word
