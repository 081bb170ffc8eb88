"""Memory predictions: made once per setting, corrected by measurements, and used to skip runs that cannot fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import compose

from sweep.config.schema import Study
from sweep.core.record import Outcome, Record
from sweep.launch.memory_forecast import MemoryForecaster, _key
from sweep.memory import Machine, Prediction
from sweep.memory.prediction import OF_SEED

GIB = 2**30
CARD = Machine(kind="cuda", capability=(8, 0), capacity_bytes=24 * GIB)


def predicted(allocated_bytes: int) -> Prediction:
    return Prediction(
        tier="trace",
        allocated_bytes=allocated_bytes,
        peak_at="backward",
        breakdown={"activations": allocated_bytes},
        relative_band=0.01,
    )


def test_a_change_without_effect_on_memory_needs_no_new_prediction():
    ordered = _key(compose("variant=lora_r8"))
    launched = ["seed=3", "study.trial=2", "study.swept=[variant]", "study.name=x", "study.learning_rate_multiplier=3"]
    assert _key(compose("variant=lora_r8", *launched)) == ordered
    assert _key(compose("variant=lora_r8", "variant.learning_rate=1e-5")) == ordered
    assert _key(compose("variant=lora_r8", "variant.r=4")) != ordered
    assert _key(compose("variant=lora_r8", "train.micro_batch_size=2")) != ordered


def test_seeds_share_a_prediction_unless_they_select_other_examples():
    """If a run is shorter than a pass over its data, its seed selects its examples, and so its longest micro-batch."""
    forecaster = MemoryForecaster(CARD)
    first, second = (compose("variant=lora_r8", f"seed={seed}") for seed in (0, 1))
    whole = predicted(GIB)
    forecaster._known = {_key(first): whole, _key(first, with_seed=True): whole}
    assert forecaster.predict_all([first, second]) == [whole, whole]
    part = replace(whole, assumptions={OF_SEED: "0"})
    forecaster._known = {_key(first): part, _key(first, with_seed=True): part}
    assert forecaster._answer(first) is part
    assert forecaster._answer(second) is None


def test_predictions_are_corrected_from_the_third_run_on(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="sweep.launch.memory_forecast")
    forecaster = MemoryForecaster(CARD)
    record = Record(variant="v", setting="v", seed=0, outcome=Outcome.OK)
    for measured, correction in ((110.0, 1.0), (130.0, 1.0), (120.0, 1.2), (120.0, 1.2)):
        forecaster.update_correction(
            record.ended(Outcome.OK, max_memory_allocated=measured, **{"memory/predicted_bytes": 100.0})
        )
        assert forecaster.correction == pytest.approx(correction)
    assert caplog.messages == [
        "Memory of the first 3 runs was predicted within 30.0%; from now on predictions are multiplied by 1.200."
    ]
    forecaster.update_correction(record)  # nothing was measured
    assert forecaster.correction == pytest.approx(1.2)


def test_only_runs_that_certainly_do_not_fit_are_skipped():
    forecaster = MemoryForecaster(CARD)
    assert forecaster.skip_reason(predicted(24 * GIB), Study()) is None  # within the declared error
    reason = forecaster.skip_reason(predicted(25 * GIB), Study())
    assert "25.0 GiB ± 1.0%, and the device has 24.0 GiB" in reason
    assert forecaster.skip_reason(predicted(25 * GIB), Study(launch_despite_prediction=True)) is None
    assert "the budget is 10.0 GiB" in forecaster.skip_reason(predicted(11 * GIB), Study(memory_budget_gib=10.0))
    assert forecaster.skip_reason(None, Study()) is None
    paged = replace(predicted(23 * GIB), paged_bytes=2 * GIB)  # it may leave the device, but it is needed
    assert forecaster.skip_reason(paged, Study()) is None
    assert "needs 25.0 GiB" in forecaster.skip_reason(paged, Study(memory_budget_gib=24.0))
