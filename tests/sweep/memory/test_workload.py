"""The workload of a prediction: from the data where it is there, without a download."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import compose
from huggingface_hub import constants

from sweep.config.schema import parse
from sweep.memory import workload
from sweep.memory.prediction import Machine
from sweep.models.pretrained import Pretrained


def test_a_prediction_downloads_nothing(toy: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    offline = []

    def unreachable(model: Pretrained) -> None:
        offline.append(constants.is_offline_mode())
        raise OSError("the cache has no tokenizer")

    monkeypatch.setattr(Pretrained, "load_tokenizer", unreachable)
    found = workload.find(parse(compose("variant=lora_r8", *toy)), Machine(kind="cpu"))
    assert offline == [True]
    assert not constants.is_offline_mode()
    assert not found.from_data


def test_the_workload_is_the_longest_micro_batch_of_the_data(toy: list[str], tiny_checkpoint: Path):
    config = parse(compose("variant=lora_r8", *toy))
    found = workload.find(config, Machine(kind="cpu"))
    assert found.from_data
    assert found.length == max(len(row["input_ids"]) for row in found.rows)
    assert len(found.rows) == found.micro_batch_size == 4
