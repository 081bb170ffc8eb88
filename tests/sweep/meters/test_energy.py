"""Energy is measured or absent, never estimated."""

from __future__ import annotations

import math

import fake_nvml
import pytest
import torch
from fake_nvml import a100_in_slices, h100, uuid_of

from sweep.meters.energy import COUNTER, SAMPLES, EnergyMeter, counted_joules, integrated_joules
from sweep.runtime import nvml


def test_the_counters_of_all_gpus_add_up():
    """NVML counts millijoules since the driver was loaded."""
    assert counted_joules([5_000, 1_000_000], [65_000, 1_030_500]) == 60.0 + 30.5


def test_a_counter_that_was_reset_gives_no_figure():
    assert counted_joules([5_000, 1_000_000], [65_000, 20]) is None


def test_constant_power_integrates_to_power_times_time():
    assert integrated_joules([(10.0, 250.0), (10.1, 250.0), (13.0, 250.0)]) == pytest.approx(750.0)


def test_a_ramp_integrates_exactly_with_all_sample_times():
    """Trapezoids are exact for straight lines: from 100 W to 300 W in 2 s are 400 J."""
    times = [0.0, 0.13, 0.5, 1.1, 1.9, 2.0]
    assert integrated_joules([(t, 100 + 100 * t) for t in times]) == pytest.approx(400.0)


def test_a_wave_integrates_to_its_mean():
    """Ten samples a second. The power has a period of one second, like a step with a busy and an idle half."""
    samples = [(i / 10, 200 + 100 * math.sin(2 * math.pi * i / 10)) for i in range(101)]
    assert integrated_joules(samples) == pytest.approx(2000.0, rel=1e-9)


def test_one_reading_of_power_gives_no_energy():
    assert integrated_joules([(0.0, 300.0)]) is None


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Readings of one GPU's energy counter, in millijoules, the next one last."""
    readings: list[int] = []
    monkeypatch.setattr(nvml, "leased_uuids", lambda: ("GPU-1",))
    monkeypatch.setattr(nvml, "handles", list)
    monkeypatch.setattr(nvml, "ask", lambda function, handle: readings.pop())
    return readings


def test_an_evaluation_inside_training_does_not_count(counter: list[int]):
    counter += [90_000, 80_000, 30_000, 10_000]  # begin, pause, end of the pause, end
    with EnergyMeter() as meter, meter.paused():
        pass
    assert meter.joules == 20.0 + 10.0
    assert meter.source == COUNTER
    assert counter == []


def test_a_part_without_a_figure_leaves_the_whole_without(counter: list[int]):
    counter += [90_000, 80_000, 5, 10_000]
    with EnergyMeter() as meter, meter.paused():
        pass
    assert meter.joules is None
    assert meter.source == "none: the energy counter decreased"


def test_a_counter_that_fails_after_a_pause_leaves_the_whole_without(
    counter: list[int], monkeypatch: pytest.MonkeyPatch
):
    counter += [80_000, 10_000]

    def gone(function: str, handle: str) -> int:
        raise nvml.Unavailable("GPU is lost")

    with EnergyMeter() as meter, meter.paused():
        monkeypatch.setattr(nvml, "ask", gone)
    assert meter.joules is None
    assert "GPU is lost" in meter.source


def test_without_a_gpu_there_is_a_reason_and_no_figure():
    with EnergyMeter() as meter:
        pass
    assert meter.joules is None
    assert meter.source.startswith("none: no NVIDIA GPU")


def test_a_gpu_that_nvml_does_not_know_is_a_reason():
    with pytest.raises(nvml.Unavailable, match="NVML"):
        nvml.handles(("GPU-00000000-0000-0000-0000-000000000000",))


@pytest.mark.parametrize(
    ("visible", "counted", "source"),
    [
        (uuid_of(1), 7.0, COUNTER),
        (f"{uuid_of(0)},{uuid_of(1)}", 12.0, COUNTER),
        ("MIG-00000001-aaaa", None, "none: neither an energy counter nor power readings: "),
        ("GPU-unknown", None, "none: NVML does not know GPU-unknown: Not Found"),
    ],
)
def test_the_energy_is_that_of_the_leased_gpus(
    visible: str, counted: float | None, source: str, monkeypatch: pytest.MonkeyPatch
):
    """A MIG slice has no counter of its own, and that of its GPU would count the other slices."""
    used = {0: 5_000, 1: 7_000, 2: 11_000}
    whole = [h100(millijoules=0) for _ in range(2)]
    sliced = a100_in_slices(1)
    sliced.millijoules = 0
    fake = fake_nvml.install(monkeypatch, *whole, sliced, visible=visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with EnergyMeter() as meter:
        for number, joules in used.items():
            fake.gpus[number].millijoules += joules
    assert meter.joules == counted
    assert meter.source.startswith(source)


def test_a_gpu_that_is_lost_during_training_gives_a_reason_and_no_figure(monkeypatch: pytest.MonkeyPatch):
    fake = fake_nvml.install(monkeypatch, h100(millijoules=0), visible=uuid_of(0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with EnergyMeter() as meter:
        fake.gpus[0].lost = True
    assert meter.joules is None
    assert meter.source == "none: nvmlDeviceGetTotalEnergyConsumption: GPU is lost"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and -m gpu")
def test_counter_and_power_samples_agree():
    """On a GPU: two seconds of work, measured by both, within 10%."""
    meter, sampled = EnergyMeter(), EnergyMeter()
    with meter, sampled:
        sampled._counters.clear()
        sampled._sample()
        matrix = torch.randn(4096, 4096, device="cuda")
        end = torch.cuda.Event(enable_timing=True)
        for _ in range(2000):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        end.record()
        torch.cuda.synchronize()
    assert (meter.source, sampled.source) == (COUNTER, SAMPLES)
    assert sampled.joules == pytest.approx(meter.joules, rel=0.1)
